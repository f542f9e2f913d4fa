"""Noise: how it is added, what the denoiser should predict, and how samplers remove it."""
