"""Text: tokenizing, incremental detokenizing with stop strings, chat templates. Nothing here knows the engine."""
