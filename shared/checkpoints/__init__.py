"""Base models on a disk: what their files say of them without their weights, and what is wrong with them. No torch."""
