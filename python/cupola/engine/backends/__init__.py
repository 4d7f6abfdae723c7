"""What can stand behind an engine: one module a backend; `select` opens the one that a model needs."""
