"""API and scheduler in one process: thin, knows the formats, never a module."""
