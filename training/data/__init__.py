"""Captioned photos: files, datasets, validation, batches, cached features."""
