"""The object classes of mini-MMEB: OpenMoji drawings whose name is one everyday word."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from unime_kedro.minimmeb.words import EXCLUDED, LOOK_ALIKES, SYNONYMS

#: classes that the tiny models are trained on and that every data set is made of
N_CLASSES = 160
#: classes that no model has seen: only the judge's test uses them
N_NOVEL = 40

_GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")


@dataclass(frozen=True)
class ObjectClass:
    """One kind of object: its id in the truth tables, its name and other words for it, its drawing."""

    index: int
    name: str
    synonyms: tuple[str, ...]
    hexcode: str
    group: str
    subgroup: str
    #: what it looks like; classes of one cluster are never on two sides of a split
    cluster: str

    @property
    def words(self) -> tuple[str, ...]:
        """Every word for it, its name first."""
        return (self.name, *self.synonyms)


@cache
def metadata() -> tuple[dict[str, str], ...]:
    """Return the vendored OpenMoji rows (hexcode, name, group, subgroup, tags), in the file's order."""
    source = resources.files("unime_kedro.data").joinpath("openmoji.csv")
    return tuple(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))


@cache
def clusters() -> dict[str, str]:
    """Return name -> cluster of every name in ``LOOK_ALIKES``: overlapping lists are one cluster."""
    joined: list[set[str]] = []
    for group in LOOK_ALIKES:
        touched = [c for c in joined if c & group]
        joined = [c for c in joined if not c & group] + [set(group).union(*touched)]
    return {name: min(cluster) for cluster in joined for name in cluster}


def eligible() -> list[dict[str, str]]:
    """Return the rows that qualify as object classes, by name: one lower-case word that is not left out."""
    rows = [
        row
        for row in metadata()
        if row["group"] in _GROUPS
        and row["name"].isascii()
        and row["name"].isalpha()
        and row["name"].islower()
        and row["name"] not in EXCLUDED
    ]
    return sorted(rows, key=lambda row: row["name"])


def _class(index: int, row: dict[str, str]) -> ObjectClass:
    name = row["name"]
    cluster = clusters().get(name, name)
    return ObjectClass(index, name, SYNONYMS.get(name, ()), row["hexcode"], row["group"], row["subgroup"], cluster)


@cache
def object_classes() -> tuple[ObjectClass, ...]:
    """Return the ``N_CLASSES`` classes of the corpus, ``index`` 0..159, in a fixed shuffled order."""
    rows = eligible()
    order = np.random.default_rng(20251).permutation(len(rows))[:N_CLASSES]
    return tuple(_class(i, rows[row]) for i, row in enumerate(order))


@cache
def novel_classes() -> tuple[ObjectClass, ...]:
    """Return the ``N_NOVEL`` classes (``index`` 160..199) that share no cluster with a class of the corpus."""
    rows = eligible()
    seen = {c.cluster for c in object_classes()}
    words = {word for c in object_classes() for word in c.words}
    rest = [
        rows[row]
        for row in np.random.default_rng(20251).permutation(len(rows))[N_CLASSES:]
        if clusters().get(rows[row]["name"], rows[row]["name"]) not in seen and rows[row]["name"] not in words
    ]
    return tuple(_class(N_CLASSES + i, row) for i, row in enumerate(rest[:N_NOVEL]))


@cache
def all_classes() -> tuple[ObjectClass, ...]:
    """Return the classes of the corpus, then the novel ones: the class of index ``i`` is at place ``i``."""
    return object_classes() + novel_classes()


@cache
def subgroup_members() -> dict[int, tuple[int, ...]]:
    """Return, for each class, the others of its subgroup on its side of the seen/novel line: its hard negatives."""
    found = {}
    for side in (object_classes(), novel_classes()):
        for c in side:
            found[c.index] = tuple(o.index for o in side if o.subgroup == c.subgroup and o.index != c.index)
    return found
