"""How weights become few bits: formats, schemes, rounding and packed layouts. Knows no files and no models' code."""
