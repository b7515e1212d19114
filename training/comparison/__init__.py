"""Training several configurations alike and comparing them."""
