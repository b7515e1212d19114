"""Whole training runs: directory, initialization, phrase head, weight averaging."""
