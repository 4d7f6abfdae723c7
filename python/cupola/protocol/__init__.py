"""The wire: what clients send and what they get back, as pydantic models. No engine, no HTTP framework."""
