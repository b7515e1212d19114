"""How a network is trained: configuration, losses, rewards, trainer, processes."""
