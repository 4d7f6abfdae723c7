"""From a checkpoint to a compiled folder: configuration, target, lowering, packing."""
