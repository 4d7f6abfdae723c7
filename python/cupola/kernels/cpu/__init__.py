"""CPU kernels: loops, vectors and threads stated outright, so that the compiler only allocates registers."""
