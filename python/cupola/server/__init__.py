"""The HTTP server: one module an entrypoint, a literal route table in `app`. Text and JSON; no model, no compiler."""
