"""TIR kernels: the arithmetic of a model, emitted for one target at a time."""
