"""LoRA files that other tools have written: what a file is and which base models it fits, by its header."""
