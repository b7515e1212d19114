"""What the benchmarks share: client, server, health probe, photos, report."""
