"""What is stored: for each row type its dataclass, merge, bytes and key."""
