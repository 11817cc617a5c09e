"""Migration steps, named by number and subject."""
