"""Two more benchmarks of mini-MMEB, in the published layouts of their models.

* ``captions/EmojiCaptions``: five captions a picture, as Flickr30K (``annotations.csv`` with columns raw, sentids,
  split, filename, img_id, and ``images/``).
* ``compositional/EmojiCrepe``: SugarCrepe's seven files (``{"0": {filename, caption, negative_caption}, ...}`` and
  ``images/``). Relations are places in the scene, attributes the colour of the ground. The tiny models are trained on
  neither, and the files show it.
"""

from __future__ import annotations

import csv
import json
import zlib
from itertools import combinations
from pathlib import Path

import numpy as np

from unime_kedro.minimmeb import scenes, texts
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.drawing import WHITE, compose, draw, png_bytes
from unime_kedro.minimmeb.tasks import scene_picture
from unime_kedro.minimmeb.writer import picture_file, tiles_of

COMPOSITIONAL = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")

_GROUNDS = {"red": (255, 190, 190), "green": (190, 240, 190), "blue": (195, 205, 255), "yellow": (255, 245, 170)}
#: relation -> (cell of the first object, cell of the second) in both rows or columns, its opposite
_RELATIONS = {
    "to the left of": (((0, 1), (2, 3)), "to the right of"),
    "to the right of": (((1, 0), (3, 2)), "to the left of"),
    "above": (((0, 2), (1, 3)), "below"),
    "below": (((2, 0), (3, 1)), "above"),
}

Colour = tuple[int, int, int]


def write_captions(folder: Path, seed: int, n: int) -> int:
    """Write ``n`` pictures with five captions each; returns the number of pictures.

    Four captions name all objects; one names two of three, where no other picture shows these two.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"captions")])
    sets = _distinct_sets(rng, n)
    (folder / "images").mkdir(parents=True)
    rows = []
    for i, objects in enumerate(sets):
        picture = scene_picture(rng, objects)
        (folder / "images" / f"{i}.png").write_bytes(picture_file(picture, tiles_of(picture, rng)))
        named = [objects] * 4 + [_telling_pair(objects, sets)]
        captions: dict[str, None] = {}
        while len(captions) < len(named):
            captions.setdefault(texts.caption(rng, named[len(captions)]))
        ids = list(range(5 * i, 5 * i + 5))
        rows.append([json.dumps(list(captions)), json.dumps(ids), "test", f"{i}.png", i])
    with (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([["raw", "sentids", "split", "filename", "img_id"], *rows])
    return n


def _distinct_sets(rng: np.random.Generator, n: int) -> list[tuple[int, ...]]:
    found: dict[tuple[int, ...], None] = {}
    while len(found) < n:
        found |= dict.fromkeys(objects for objects in scenes.family(rng, "eval", subsets=0))
    return list(found)[:n]


def _telling_pair(objects: tuple[int, ...], sets: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return two of three objects that no other set holds; all three where there are none such."""
    others = [set(other) for other in sets if other != objects]
    pairs = [pair for pair in combinations(objects, 2) if not any(set(pair) <= other for other in others)]
    return pairs[0] if pairs else objects


def write_compositional(folder: Path, seed: int, n: int) -> int:
    """Write SugarCrepe's seven files with ``n`` entries each; returns the number of pictures."""
    (folder / "images").mkdir(parents=True)
    for name in COMPOSITIONAL:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        entries = {}
        for i in range(n):
            entry, pixels = _entry(name, rng)
            file = f"{name}_{i}.png"
            (folder / "images" / file).write_bytes(png_bytes(pixels))
            entries[str(i)] = {"filename": file, **entry}
        (folder / f"{name}.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return n * len(COMPOSITIONAL)


def _entry(name: str, rng: np.random.Generator) -> tuple[dict[str, str], np.ndarray]:
    """Make one entry: caption, negative caption and the pixels of the picture."""
    first, second = (int(i) for i in rng.permutation(scenes.random_set(rng, 2, "eval")))
    colours = [str(c) for c in rng.permutation(list(_GROUNDS))]
    if name.endswith("_obj") and name != "swap_obj":
        third = _rival(rng, second, first)
        right = _and(_a(first), _a(second))
        wrong = f"{_a(first)}, {_a(second)} and {_a(third)}" if name == "add_obj" else _and(_a(first), _a(third))
        return _captions(right, wrong), _scene(rng, [first, second], [0, 3], [WHITE, WHITE])
    if name in ("swap_obj", "replace_rel"):
        relation = str(rng.choice(list(_RELATIONS)))
        places, opposite = _RELATIONS[relation]
        cells = places[int(rng.integers(2))]
        right = f"{_a(first)} {relation} {_a(second)}"
        wrong = f"{_a(second)} {relation} {_a(first)}" if name == "swap_obj" else f"{_a(first)} {opposite} {_a(second)}"
        return _captions(right, wrong), _scene(rng, [first, second], list(cells), [WHITE, WHITE])
    grounds = [_GROUNDS[c] for c in colours[:2]]
    right = _and(_on(first, colours[0]), _on(second, colours[1]))
    wrong = _and(_on(first, colours[1]), _on(second, colours[0]))
    if name == "replace_att":
        wrong = _and(_on(first, colours[2]), _on(second, colours[1]))
    elif name == "add_att":
        right, wrong = _and(_a(first), _a(second)), _and(_on(first, colours[2]), _a(second))
    return _captions(right, wrong), _scene(rng, [first, second], [0, 3], grounds)


def _rival(rng: np.random.Generator, index: int, beside: int) -> int:
    """Draw what takes the place of an object: one of the same subgroup where there is one besides the other object."""
    rivals = [i for i in scenes.subgroup_members()[index] if i != beside]
    return int(rng.choice(rivals or [i for i in scenes.members("eval") if i not in (index, beside)]))


def _captions(right: str, wrong: str) -> dict[str, str]:
    return {"caption": right, "negative_caption": wrong}


def _a(index: int) -> str:
    name = object_classes()[index].name
    return f"{texts.article(name)} {name}"


def _on(index: int, colour: str) -> str:
    return f"{_a(index)} on {colour} ground"


def _and(first: str, second: str) -> str:
    return f"{first} and {second}"


def _scene(rng: np.random.Generator, objects: list[int], cells: list[int], grounds: list[Colour]) -> np.ndarray:
    classes = object_classes()
    tiles = [draw(classes[i], rng, ground=ground) for i, ground in zip(objects, grounds, strict=True)]
    return compose(tiles, cells)
