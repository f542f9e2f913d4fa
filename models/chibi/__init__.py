"""Chibi: a tiny Stable Diffusion, trained from scratch on a world that we render ourselves."""
