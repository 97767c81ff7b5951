"""Write mini-MMEB to disk in exactly MMEB's layout, with the ground truth beside it.

::

    <root>/train/<data set>/original-00000-of-00001.parquet   qry, qry_image_path, pos_text, pos_image_path
    <root>/train/images/<data set>/Train/*.png                 paths start with images/
    <root>/eval/<data set>/test-00000-of-00001.parquet         qry_text, qry_img_path, tgt_text[], tgt_img_path[]
    <root>/eval/images/<data set>/*.png                        paths start with the data set
    <root>/truth/<train|eval>/{contents,wants}.parquet         objects of every content, objects wanted by every query

The same seed gives the same bytes. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.minimmeb import scenes
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.drawing import compose, draw, png_bytes
from unime_kedro.minimmeb.tasks import TASKS, Picture, Query, Side, Task, make_candidate, make_query, wrong_objects

MANIFEST = "manifest.json"

#: raise when the same parameters give other bytes than before
VERSION = 1


@dataclass
class _Writer:
    """Collects the rows of one split and writes its pictures."""

    folder: Path
    contents: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    wants: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    pictures: int = 0

    def picture(self, path: str, pixels: np.ndarray) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png_bytes(pixels))
        self.pictures += 1

    def content(self, side: Side, image: str) -> None:
        self.contents[(side.text, image)] = (side.modality, side.objects)

    def want(self, query: Query, image: str) -> None:
        self.wants[(query.side.text, image)] = (query.want_modality, query.want_objects)


def _tiles(picture: Picture, rng: np.random.Generator) -> list[np.ndarray]:
    classes = object_classes()
    return [draw(classes[i], rng) for i in picture.objects]


def _pixels(picture: Picture, tiles: list[np.ndarray]) -> np.ndarray:
    return tiles[0] if picture.crop else compose(tiles, list(picture.cells))


def _object_sets(seed: int, task: Task, split: str, n: int) -> list[tuple[int, ...]]:
    """Draw the object sets of a data set's queries.

    Both directions of caption retrieval draw from one list, half of it in common, so that each finds the other's
    pictures and captions in the global pool. A quarter of the families is shown twice: the natural false negatives.
    """
    shared = task.meta_task == "retrieval"
    rng = np.random.default_rng([seed, zlib.crc32((split + ("scenes" if shared else task.name)).encode())])
    if task.name == "EmojiObjects":
        return [(int(rng.integers(len(object_classes()))),) for _ in range(n)]
    offset = n // 2 if task.name == "EmojiScenes_t2i" else 0
    found: list[tuple[int, ...]] = []
    while len(found) < offset + n:
        members = scenes.family(rng, split)
        found += members + (members[:1] if rng.random() < 0.25 else [])
    return found[offset : offset + n]


def _query_images(task: Task, query: Query, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray | None]:
    picture = query.side.picture
    if picture is None:
        return [], None
    tiles = _tiles(picture, rng)
    return tiles, _pixels(picture, tiles)


def _target(task: Task, query: Query, tiles: list[np.ndarray], rng: np.random.Generator) -> tuple[Side, Any]:
    """Make the right target; the target of a grounding query is cut out of the query's own picture."""
    side = make_candidate(task, rng, query.want_objects)
    if side.picture is None:
        return side, None
    if task.target == "crop" and query.side.picture is not None:
        return side, tiles[query.side.picture.objects.index(query.want_objects[0])]
    return side, _pixels(side.picture, _tiles(side.picture, rng))


def _write_train(writer: _Writer, task: Task, seed: int, n: int, advance: Callable[[], None]) -> None:
    import polars as pl

    rng = np.random.default_rng([seed, zlib.crc32(f"train/{task.name}".encode())])
    rows = []
    for i, objects in enumerate(_object_sets(seed, task, "train", n)):
        query = make_query(task, rng, objects)
        tiles, pixels = _query_images(task, query, rng)
        side, target_pixels = _target(task, query, tiles, rng)
        paths = ["", ""]
        for k, image in enumerate((pixels, target_pixels)):
            if image is not None:
                paths[k] = f"images/{task.name}/Train/{task.name}_{'query' if k == 0 else 'target'}_{i}.png"
                writer.picture(paths[k], image)
        writer.want(query, paths[0])
        writer.content(query.side, paths[0])
        writer.content(side, paths[1])
        rows.append((query.side.text, paths[0], side.text, paths[1]))
        advance()
    frame = pl.DataFrame(rows, schema=["qry", "qry_image_path", "pos_text", "pos_image_path"], orient="row")
    (writer.folder / task.name).mkdir(parents=True, exist_ok=True)
    frame.write_parquet(writer.folder / task.name / "original-00000-of-00001.parquet")


def _check_candidates(eval_queries: dict[str, int], eval_candidates: int) -> None:
    """Make sure that there are as many different candidates as are asked for."""
    largest = len(object_classes())  # a label or a crop is one object; sets of three are beyond counting
    short = [name for name, n in eval_queries.items() if n and TASKS[name].target in ("label", "crop")]
    if short and eval_candidates > largest:
        raise ConfigurationError(
            f"demo.eval_candidates = {eval_candidates}: expected at most {largest}, as many as there are different "
            f"answers in {', '.join(short)}. Ask for fewer, or set demo.eval_queries of these data sets to 0."
        )


def _wrong_sets(task: Task, rng: np.random.Generator, query: Query, n: int) -> list[tuple[int, ...]]:
    """Draw ``n`` different wrong object sets, hard ones first, filled up with random ones.

    There must be so many, see :func:`_check_candidates`.
    """
    found: dict[tuple[int, ...], None] = {}
    tries = 0
    while len(found) < n:
        tries += 1
        single = task.target in ("label", "crop")
        if tries < 4 * n:
            objects = wrong_objects(task, rng, query)
        else:
            objects = scenes.random_set(rng, 1 if single else 3, "eval")
        if set(objects) != set(query.want_objects):
            found.setdefault(tuple(sorted(objects)))
    return list(found)


def _write_eval(writer: _Writer, task: Task, seed: int, n: int, candidates: int, advance: Callable[[], None]) -> None:
    import polars as pl

    rng = np.random.default_rng([seed, zlib.crc32(f"eval/{task.name}".encode())])
    rows = []
    for i, objects in enumerate(_object_sets(seed, task, "eval", n)):
        query = make_query(task, rng, objects)
        tiles, pixels = _query_images(task, query, rng)
        query_path = f"{task.name}/{task.name}_query_{i}.png" if pixels is not None else ""
        if pixels is not None:
            writer.picture(f"images/{query_path}", pixels)
        targets = [_target(task, query, tiles, rng)]
        for wrong in _wrong_sets(task, rng, query, candidates - 1):
            side = make_candidate(task, rng, wrong)
            targets.append((side, None if side.picture is None else _pixels(side.picture, _tiles(side.picture, rng))))
        paths = []
        for k, (side, image) in enumerate(targets):
            paths.append(f"{task.name}/{task.name}_target_{i}_{k}.png" if image is not None else "")
            if image is not None:
                writer.picture(f"images/{paths[-1]}", image)
            writer.content(side, paths[-1])
        writer.want(query, query_path)
        rows.append((query.side.text, query_path, [side.text for side, _ in targets], paths))
        advance()
    frame = pl.DataFrame(rows, schema=["qry_text", "qry_img_path", "tgt_text", "tgt_img_path"], orient="row")
    (writer.folder / task.name).mkdir(parents=True, exist_ok=True)
    frame.write_parquet(writer.folder / task.name / "test-00000-of-00001.parquet")


def _write_truth(writer: _Writer, folder: Path) -> None:
    import polars as pl

    folder.mkdir(parents=True)
    for name, modality, objects, rows in (
        ("contents", "modality_out", "objects", writer.contents),
        ("wants", "want_modality", "want_objects", writer.wants),
    ):
        pl.DataFrame(
            {
                "text": [text for text, _ in rows],
                "image": [image for _, image in rows],
                modality: [kind for kind, _ in rows.values()],
                objects: [sorted(found) for _, found in rows.values()],
            },
            schema_overrides={objects: pl.List(pl.Int64)},
        ).write_parquet(folder / f"{name}.parquet")


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file() and p != root / MANIFEST)


def folder_digest(root: Path) -> str:
    """Return one hash over the names and bytes of all files below ``root``, its manifest left out."""
    digest = hashlib.sha256()
    for file in _files(root):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read_manifest(root: Path) -> dict[str, Any]:
    """Return what :func:`write_corpus` said of the corpus at ``root``; empty when there is none."""
    try:
        return dict(json.loads((root / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _refuse_foreign_files(root: Path) -> None:
    """Make sure that replacing ``root`` deletes nothing that mini-MMEB would not write itself."""
    names = "|".join(map(re.escape, TASKS))
    ours = re.compile(
        rf"train/({names})/original-00000-of-00001\.parquet|train/images/({names})/Train/\w+\.png|"
        rf"eval/({names})/test-00000-of-00001\.parquet|eval/images/({names})/\w+\.png|"
        r"truth/(train|eval)/(contents|wants)\.parquet"
    )
    foreign = [f for f in (p.relative_to(root).as_posix() for p in _files(root)) if not ours.fullmatch(f)]
    if foreign:
        raise DataError(
            f"{root} holds {len(foreign)} files that are not mini-MMEB's, for example {foreign[0]}; mini-MMEB has to "
            "be written there again and would delete them. Move them elsewhere and set ingest.root and "
            "ingest.image_root, or set demo.root to another folder."
        )


def write_corpus(
    root: Path,
    *,
    seed: int,
    train_pairs: dict[str, int],
    eval_queries: dict[str, int],
    eval_candidates: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write the whole corpus; an older one at the same place is replaced once the new one is complete.

    Args:
        root: Folder to make.
        seed: Seed of everything; equal seeds and sizes give equal bytes.
        train_pairs: Data set -> training pairs.
        eval_queries: Data set -> evaluation queries.
        eval_candidates: Candidates per evaluation query, the right one included.
        advance: Called once per pair or query written.

    Returns:
        The manifest (also in ``manifest.json``): version, data sets with their sizes, pictures, digest of all files.

    Raises:
        KeyError: If a data set is unknown.
        ConfigurationError: If there are not as many different candidates as asked for; nothing is written then.
        DataError: If ``root`` holds files that mini-MMEB does not write; nothing is deleted then.
    """
    _check_candidates(eval_queries, eval_candidates)
    _refuse_foreign_files(root)
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    train, evaluation = _Writer(partial / "train"), _Writer(partial / "eval")
    for name, n in train_pairs.items():
        _write_train(train, TASKS[name], seed, n, advance)
    for name, n in eval_queries.items():
        _write_eval(evaluation, TASKS[name], seed, n, eval_candidates, advance)
    _write_truth(train, partial / "truth" / "train")
    _write_truth(evaluation, partial / "truth" / "eval")
    manifest = {
        "version": VERSION,
        "seed": seed,
        "train_pairs": dict(train_pairs),
        "eval_queries": dict(eval_queries),
        "eval_candidates": eval_candidates,
        "pictures": train.pictures + evaluation.pictures,
        "digest": folder_digest(partial),
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(root)
    return manifest
