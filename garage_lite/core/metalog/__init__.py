"""The metadata log, as arithmetic on bytes: formats, merges and plans, never a file.

`core/disk/metadata.py` carries out what is planned here.
"""
