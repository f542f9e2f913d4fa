"""The whole service on one bare machine: every server comes from pip, and one command runs them all."""
