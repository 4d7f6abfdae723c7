"""Checkpoints: finding them, reading them under Hugging Face names, and converting them into packed shards."""
