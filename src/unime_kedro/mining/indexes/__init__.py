"""The kinds of index beside the exact flat one: inverted lists, a graph, GPUs; and the choice between them.

All of them propose candidates to :mod:`unime_kedro.mining.search`, so that exclusions, delta, ties and the length of a
pool follow the same rules. What an approximate one misses is measured against the flat index.
"""
