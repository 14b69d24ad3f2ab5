"""What a node does by itself: one short loop for each pure plan, run by `runner`."""
