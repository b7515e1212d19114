"""Pictures of attention: overlays, contact sheets, animations."""
