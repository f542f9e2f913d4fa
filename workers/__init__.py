"""Runs jobs: the torch code, and what carries inputs to it and results from it."""
