"""How good captions are: metrics, breakdown, grounding, CHAIR."""
