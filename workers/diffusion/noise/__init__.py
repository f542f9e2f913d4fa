"""Noise: how much of it goes in, what the denoiser should answer, and how samplers take it away."""
