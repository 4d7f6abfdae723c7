"""Measuring: the same workloads against any OpenAI-compatible server, or in process."""
