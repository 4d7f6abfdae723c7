"""What `scripts/targets.py` runs for each target: emulators, disassemblers, front ends of compilers."""
