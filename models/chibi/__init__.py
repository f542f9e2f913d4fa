"""Chibi: a tiny Stable Diffusion base model and its attribute reader. `chibi_lab` made them."""
