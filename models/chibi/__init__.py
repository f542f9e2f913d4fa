"""Chibi: a tiny Stable Diffusion and its attribute reader, as they ship. `chibi_lab` made them."""
