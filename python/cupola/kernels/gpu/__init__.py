"""Kernels for graphics processors of every kind that TVM generates code for."""
