"""From the decoder's logits to captions: options, constraints, beam search, sampling."""
