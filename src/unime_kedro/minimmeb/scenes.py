"""Which objects stand together: families of overlapping object sets, split so that nothing alike is in two splits.

A *family* is a set of three objects, variations of it with one object exchanged (for one of the same subgroup where
there is one) and subsets of two. Families are what makes near misses and graded relevance occur by themselves.

A set belongs to one split, by a hash of its objects' *clusters* (look-alikes count as one thing, see
``words.LOOK_ALIKES``). A fifth of all pairs of clusters is *reserved*: such two things stand together in no split but
``combinations``, whose sets are made of reserved pairs alone.
"""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np

from unime_kedro.minimmeb.classes import N_CLASSES, all_classes, novel_classes, subgroup_members

#: split -> buckets (of twenty) of the hash of an object set; sets of one object are in every split
SPLIT_BUCKETS: dict[str, frozenset[int]] = {
    "pretrain": frozenset(range(12)),  # the tiny models are made from these
    "train": frozenset(range(12, 16)),  # training pairs of the corpus
    "eval": frozenset({16, 17}),  # evaluation queries of the corpus
    "calibration": frozenset({18}),  # temperature of the judge, validation queries: everything that is chosen by
    "judge_test": frozenset({19}),  # looked at once
}
#: the split that validation queries are made of
VALIDATION = "calibration"
#: sets of unseen combinations: every two of their objects are a reserved pair
COMBINATIONS = "combinations"
#: sets of classes that no model has seen
NOVEL = "novel"

_RESERVED_OF_FIVE = 1


def _digest(words: list[str]) -> int:
    return int.from_bytes(hashlib.blake2b(",".join(words).encode(), digest_size=8).digest(), "big")


def _clusters(objects: tuple[int, ...] | frozenset[int]) -> list[str]:
    return sorted(all_classes()[i].cluster for i in objects)


def bucket(objects: frozenset[int] | tuple[int, ...]) -> int:
    """Return the bucket 0..19 of an object set; the same on every machine and in every version of Python."""
    return _digest(_clusters(objects)) % 20


def is_reserved(first: int, second: int) -> bool:
    """Tell whether two objects stand together in split ``combinations`` alone; two of one cluster never do."""
    pair = _clusters((first, second))
    return pair[0] != pair[1] and _digest(["pair", *pair]) % 5 < _RESERVED_OF_FIVE


def in_split(objects: tuple[int, ...], split: str) -> bool:
    """Tell whether an object set belongs to ``split``; single objects belong to all that have their class."""
    if (split == NOVEL) != (min(objects) >= N_CLASSES):
        return False
    if len(objects) == 1 or split == NOVEL:
        return True
    reserved = [is_reserved(a, b) for a, b in combinations(objects, 2)]
    if split == COMBINATIONS:
        return all(reserved)
    return not any(reserved) and bucket(objects) in SPLIT_BUCKETS[split]


def members(split: str) -> range:
    """Return the classes of a split."""
    return range(N_CLASSES, N_CLASSES + len(novel_classes())) if split == NOVEL else range(N_CLASSES)


def random_set(rng: np.random.Generator, size: int, split: str) -> tuple[int, ...]:
    """Draw a sorted set of ``size`` different objects that belongs to ``split``."""
    classes = members(split)
    while True:
        objects = tuple(sorted(classes.start + int(i) for i in rng.choice(len(classes), size=size, replace=False)))
        if in_split(objects, split):
            return objects


def exchange_one(rng: np.random.Generator, objects: tuple[int, ...], *, alike: float = 0.5) -> tuple[int, ...]:
    """Exchange one object for another, with probability ``alike`` for one of the same subgroup."""
    position = int(rng.integers(len(objects)))
    rivals = [i for i in subgroup_members()[objects[position]] if i not in objects]
    if not rivals or rng.random() >= alike:
        everything = members(NOVEL if objects[position] >= N_CLASSES else "pretrain")
        rivals = [i for i in everything if i not in objects]
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
