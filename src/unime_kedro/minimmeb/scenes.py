"""Which objects stand together: families of overlapping object sets, split so that no set is in two splits.

A *family* is a set of three objects, variations of it with one object exchanged (for one of the same subgroup where
there is one) and subsets of two. Families are what makes near misses and graded relevance occur by themselves.
"""

from __future__ import annotations

import hashlib

import numpy as np

from unime_kedro.minimmeb.classes import object_classes, subgroup_members

#: split -> buckets (of ten) of the hash of an object set; sets of one object are in every split
SPLIT_BUCKETS: dict[str, frozenset[int]] = {
    "pretrain": frozenset(range(6)),
    "train": frozenset({6, 7}),
    "eval": frozenset({8}),
    "judge_test": frozenset({9}),
}


def bucket(objects: frozenset[int] | tuple[int, ...]) -> int:
    """Return the bucket 0..9 of an object set; the same on every machine and in every version of Python."""
    names = ",".join(sorted(object_classes()[i].name for i in objects))
    return hashlib.blake2b(names.encode(), digest_size=2).digest()[0] % 10


def in_split(objects: tuple[int, ...], split: str) -> bool:
    """Tell whether an object set belongs to ``split``; single objects belong to all."""
    return len(objects) == 1 or bucket(objects) in SPLIT_BUCKETS[split]


def random_set(rng: np.random.Generator, size: int, split: str) -> tuple[int, ...]:
    """Draw a sorted set of ``size`` different objects that belongs to ``split``."""
    n = len(object_classes())
    while True:
        objects = tuple(sorted(int(i) for i in rng.choice(n, size=size, replace=False)))
        if in_split(objects, split):
            return objects


def exchange_one(rng: np.random.Generator, objects: tuple[int, ...], *, alike: float = 0.5) -> tuple[int, ...]:
    """Exchange one object for another, with probability ``alike`` for one of the same subgroup."""
    position = int(rng.integers(len(objects)))
    rivals = [i for i in subgroup_members()[objects[position]] if i not in objects]
    if not rivals or rng.random() >= alike:
        rivals = [i for i in range(len(object_classes())) if i not in objects]
    rest = [o for k, o in enumerate(objects) if k != position]
    return tuple(sorted([*rest, int(rng.choice(rivals))]))


def family(rng: np.random.Generator, split: str, *, variations: int = 2, subsets: int = 1) -> list[tuple[int, ...]]:
    """Draw a family: three objects, near misses of them, and pairs out of them, all of ``split``.

    Returns:
        Distinct sorted object sets, the base first. Fewer than asked for when the split's buckets do not hold enough.
    """
    base = random_set(rng, 3, split)
    found = [base]
    tries = 0
    while len(found) < 1 + variations and tries < 60:
        tries += 1
        candidate = exchange_one(rng, base)
        if in_split(candidate, split) and candidate not in found:
            found.append(candidate)
    pairs = [tuple(o for o in base if o != left_out) for left_out in base]
    found += [pair for pair in pairs if in_split(pair, split)][:subsets]
    return found
