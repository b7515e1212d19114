"""Ways of delivering captions: HTTP with its page, and files. Imports model, never training."""
