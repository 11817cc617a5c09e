"""The version of the three programs; a test holds it to pyproject.toml. Standard library only."""

VERSION = "0.1.0"
