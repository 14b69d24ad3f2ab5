"""Garage Lite: a self-hosted, geo-replicated S3 object store in one file.

Holds the version, nothing else.
"""

__version__ = "0.1.0"
