"""What a run shows of itself: log, curves, sample pages, TensorBoard."""
