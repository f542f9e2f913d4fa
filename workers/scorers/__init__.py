"""Scorers rate how well candidates match the character; `choice` selects among them."""
