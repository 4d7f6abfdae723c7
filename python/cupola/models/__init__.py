"""Model definitions: one short file an architecture, on one shared decoder."""
