"""mini-MMEB: the embedded corpus of drawings and words, with known truth. Needs no torch.

``classes`` names the objects, ``drawing`` renders them, ``scenes`` composes pictures and splits object sets,
``texts`` words them, ``corpus`` writes everything in MMEB's layout with the ground truth beside it.
"""
