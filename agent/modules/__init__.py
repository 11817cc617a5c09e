"""The modules, one file each: `agent.registry` finds them by their file names."""
