"""The laboratory of the chibi base model: its world, what trains it and what judges it. It doesn't ship."""
