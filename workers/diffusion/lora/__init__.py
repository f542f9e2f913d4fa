"""LoRAs: trained on a base model, merged into it, written to files and read from them."""
