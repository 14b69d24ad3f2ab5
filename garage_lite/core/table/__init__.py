"""Rules of the replicated tables: how rows merge, and what a change of one row brings with it."""
