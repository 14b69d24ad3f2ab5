"""This node's own files: the only package of the core that touches a file system."""
