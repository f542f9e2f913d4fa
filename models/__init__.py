"""The base models that ship with the project."""
