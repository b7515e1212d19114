"""Writing a caption with a trained decoder: options, beam search, sampling, constraints."""
