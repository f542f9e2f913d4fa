"""The whole service on one machine. pip installs every server, and one command runs them all."""
