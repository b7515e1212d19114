"""Training kinds of attention with the same recipe, and comparing their results."""
