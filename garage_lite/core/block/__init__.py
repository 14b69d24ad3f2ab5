"""Data-block rules as arithmetic: where a block lives, how it is framed, when it goes.

Nothing here touches a disk, a clock or a network: facts come in as arguments, verdicts go out.
`core/disk/block_files.py` and `core/workers/` act on them.
"""
