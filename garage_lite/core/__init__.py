"""What a node is. Everything here is pure except disk/, cluster/, store/ and workers/.

A pure package plans; the impure one of the same name does. Imports point down only:
workers -> store -> cluster -> disk -> {table block wire metalog layout model} ->
{quorum ballot codec crdt hlc ports} -> {ids errors limits}; nothing here imports web.
"""
