"""Measured by hand, never in CI: what the node costs its machine, against what it should."""
