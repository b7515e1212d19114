"""What the benchmarks share: server, client, load, health probe, photos, report."""
