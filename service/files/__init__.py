"""The batch side of the service: sources, output, runner."""
