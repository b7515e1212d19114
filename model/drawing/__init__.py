"""Drawings of attention maps: overlays, contact sheets, animations."""
