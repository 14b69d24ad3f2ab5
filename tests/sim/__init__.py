"""A world that can be repeated: virtual time, and disks that lose, tear and refuse."""
