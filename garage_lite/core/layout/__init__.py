"""Who holds what: roles, the optimal assignment, versions of the layout and the way between them.

Pure arithmetic on node ids. Knows nothing of connections, tables or files: the impure packages
feed it roles and trackers and ask which nodes hold a partition.
"""
