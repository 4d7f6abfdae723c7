"""What `scripts/measure_gpu.py` is made of."""
