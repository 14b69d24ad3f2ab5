"""Clusters of real processes: real sockets, real disks, real kills."""
