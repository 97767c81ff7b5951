"""The object classes of mini-MMEB: OpenMoji drawings whose name is one everyday word."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

#: number of object classes in the first version of the corpus
N_CLASSES = 160

_GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")

# Plural or mass nouns ("a jeans"), names that do not say what is drawn ("mate", "ice", "wedding"), drawings that look
# alike at 56 pixels (locked/unlocked, bus/trolleybus), and words a reader would not expect in a picture set.
_EXCLUDED = frozenset(
    """
    badger bank beans bikini blowfish blueberries books briefs bubbles bug butter camping candy chains
    cherries chopsticks cigarette cityscape coffin comet construction cooking coral cyclone dango dumpling dvd ewe
    fireworks flashlight fly fog foggy fondue garlic glasses gloves goggles grapes hamsa handbag headstone herb hibiscus
    houses hyacinth ice jeans joker kaaba kimono knot label landslide lime link locked lotus luggage maracas mate
    microbe minibus motorway notebook oden orca ox package pager pancakes peanuts pick piñata placard popcorn
    raccoon ram receipt rosette sake salt sari satellite sauropod school seat shamrock ship shortcake shorts
    skis skunk soap socks softball spaghetti sparkler sparkles speedboat squid station sunglasses sunrise sunset
    synagogue tamale tangerine taxi trackball tram trolleybus unlocked videocassette wedding wing wood worm
    """.split()  # noqa: SIM905  (a list of one word a line would be two screens long)
)


@dataclass(frozen=True)
class ObjectClass:
    """One kind of object: its id in the truth tables, its name, its drawing."""

    index: int
    name: str
    hexcode: str
    group: str
    subgroup: str


@cache
def metadata() -> tuple[dict[str, str], ...]:
    """Return the vendored OpenMoji rows (hexcode, name, group, subgroup, tags), in the file's order."""
    source = resources.files("unime_kedro.data").joinpath("openmoji.csv")
    return tuple(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))


@cache
def object_classes(n: int = N_CLASSES) -> tuple[ObjectClass, ...]:
    """Return the first ``n`` object classes; a larger ``n`` keeps the earlier ones.

    Args:
        n: How many classes.

    Returns:
        Classes with ``index`` 0..n-1, in a fixed shuffled order.

    Raises:
        ValueError: If fewer than ``n`` drawings qualify.
    """
    rows = [
        row
        for row in metadata()
        if row["group"] in _GROUPS
        and row["name"].isascii()
        and row["name"].isalpha()
        and row["name"].islower()
        and row["name"] not in _EXCLUDED
    ]
    rows.sort(key=lambda row: row["name"])
    if n > len(rows):
        raise ValueError(f"only {len(rows)} drawings qualify as object classes, {n} were asked for")
    order = np.random.default_rng(20251).permutation(len(rows))[:n]
    picked = [rows[i] for i in order]
    return tuple(
        ObjectClass(i, row["name"], row["hexcode"], row["group"], row["subgroup"]) for i, row in enumerate(picked)
    )


@cache
def subgroup_members(n: int = N_CLASSES) -> dict[int, tuple[int, ...]]:
    """Return, for each class, the other classes of its subgroup: the look-alikes that make hard negatives."""
    classes = object_classes(n)
    return {
        c.index: tuple(o.index for o in classes if o.subgroup == c.subgroup and o.index != c.index) for c in classes
    }
