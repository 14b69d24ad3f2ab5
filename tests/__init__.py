"""Mirrors the tree of garage_lite; see README, "Test it"."""
