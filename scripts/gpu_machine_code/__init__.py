"""What machine code for CUDA says of itself, for `scripts/gpu_report.py`."""
