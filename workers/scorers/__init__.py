"""Which candidates are her: scorers say how near, `choice` decides."""
