"""Rows of mini-MMEB's data sets: training pairs, and evaluation queries with their candidates."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from unime_kedro.minimmeb import easyvqa, scenes
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.scenes import VALIDATION
from unime_kedro.minimmeb.tasks import (
    Query,
    Side,
    Task,
    make_candidate,
    make_query,
    real_query,
    relevance,
    wrong_objects,
)
from unime_kedro.minimmeb.writer import SplitWriter, Tiles, drawn, make_target, picture_file, tiles_of

#: a candidate that is on disk: its side and the path of its picture, "" if it has none
Placed = tuple[Side, str]
#: sets in the layout of MMEB's evaluation: to be reported, or to choose by
Part = Literal["eval", "validation"]


def largest_number_of_candidates(task: Task) -> int | None:
    """Return how many different candidates a query of ``task`` can have; None where sets are beyond counting."""
    if task.target == "answer":
        return len(easyvqa.answer_ids(extra=True))
    return len(object_classes()) if task.target in ("label", "crop") else None


def object_sets(seed: int, task: Task, split: str, n: int) -> list[tuple[int, ...]]:
    """Draw the object sets of a data set's queries.

    The retrieval data sets of a split draw from one list of families, each from another place on, so that in the global
    pool each finds the others' pictures and captions. A quarter of the families is shown twice: natural false
    negatives.
    """
    shared = task.meta_task == "retrieval"
    rng = np.random.default_rng([seed, zlib.crc32((split + ("scenes" if shared else task.name)).encode())])
    if task.ask == "object":
        return [(int(rng.integers(len(object_classes()))),) for _ in range(n)]
    if task.ask == "besides":
        return [scenes.random_set(rng, 2, split) for _ in range(n)]
    offset = {"scene": n // 2, "twin": n // 4}.get(task.ask, 0)
    found: list[tuple[int, ...]] = []
    while len(found) < offset + n:
        members = scenes.family(rng, split)
        found += members + (members[:1] if rng.random() < 0.25 else [])
    return found[offset : offset + n]


def largest_number_of_queries(task: Task, split: str) -> int | None:
    """Return how many different queries ``task`` has; None where they are drawn anew."""
    return sum(map(len, easyvqa.distinct_questions(split).values())) if task.ask == "real" else None


def draw_queries(seed: int, task: Task, split: str, n: int, rng: np.random.Generator) -> list[Query]:
    """Draw the queries of a data set; of easy-VQA's questions none comes twice, pictures only when they run out.

    There must be so many, see :func:`largest_number_of_queries`.
    """
    if task.ask != "real":
        return [make_query(task, rng, objects) for objects in object_sets(seed, task, split, n)]
    return [real_query(question) for question in easyvqa.draw_questions(rng, split, n)]


def _query_picture(query: Query, rng: np.random.Generator) -> tuple[Tiles, bytes | None]:
    picture = query.side.picture
    if picture is None:
        return [], None
    tiles = tiles_of(picture, rng)
    return tiles, picture_file(picture, tiles)


def write_train(writer: SplitWriter, task: Task, seed: int, n: int, advance: Callable[[], None]) -> None:
    """Write ``n`` training pairs in the layout of MMEB-train; nothing for none."""
    if not n:
        return
    rng = np.random.default_rng([seed, zlib.crc32(f"train/{task.name}".encode())])
    rows = []
    for i, query in enumerate(draw_queries(seed, task, "train", n, rng)):
        tiles, data = _query_picture(query, rng)
        side, target_data = make_target(task, query, tiles, rng)
        paths = ["", ""]
        for k, image in enumerate((data, target_data)):
            if image is not None:
                paths[k] = f"images/{task.name}/Train/{task.name}_{'query' if k == 0 else 'target'}_{i}.png"
                writer.picture(paths[k], image)
        writer.want(query, paths[0])
        writer.content(query.side, paths[0])
        writer.content(side, paths[1])
        rows.append((query.side.text, paths[0], side.text, paths[1]))
        advance()
    columns = ["qry", "qry_image_path", "pos_text", "pos_image_path"]
    writer.table(f"{task.name}/original-00000-of-00001.parquet", columns, rows)


def wrong_sets(
    task: Task,
    rng: np.random.Generator,
    query: Query,
    n: int,
    taken: frozenset[frozenset[int]] = frozenset(),
    *,
    split: str = "eval",
) -> list[tuple[int, ...]]:
    """Draw ``n`` different wrong object sets that are not ``taken``, hard ones first, then random ones of ``split``.

    There must be so many, see :func:`largest_number_of_candidates`.
    """
    found: dict[frozenset[int], tuple[int, ...]] = {}
    tries = 0
    while len(found) < n:
        tries += 1
        objects = wrong_objects(task, rng, query) if tries < 4 * n else _any_objects(task, rng, split)
        if set(objects) != set(query.want_objects) and frozenset(objects) not in taken:
            found.setdefault(frozenset(objects), objects)
    return list(found.values())


def _any_objects(task: Task, rng: np.random.Generator, split: str) -> tuple[int, ...]:
    if task.target == "answer":
        return (int(rng.choice(easyvqa.answer_ids(extra=True))),)
    return scenes.random_set(rng, 1 if task.target in ("label", "crop") else 3, split)


class _EvalSet:
    """Writes one evaluation or validation data set."""

    def __init__(self, writer: SplitWriter, task: Task, seed: int, part: Part) -> None:
        self.writer, self.task, self.seed = writer, task, seed
        self.rng = np.random.default_rng([seed, zlib.crc32(f"{part}/{task.name}".encode())])
        #: what random wrong sets are drawn from, also where the queries are of unseen combinations
        self.filler = "eval" if part == "eval" else VALIDATION
        self.made = 0

    def place(self, side: Side, data: bytes | None) -> Placed:
        """Write a candidate's picture, if it has one, and note its truth."""
        path = ""
        if data is not None:
            path = f"{self.task.name}/{self.task.name}_target_{self.made}.png"
            self.writer.picture(f"images/{path}", data)
            self.made += 1
        self.writer.content(side, path)
        return side, path

    def wrong(self, sets: list[tuple[int, ...]], query: Query, tiles: Tiles) -> list[Placed]:
        """Make wrong candidates; crops of objects in the query's picture are cut out of it, as the target is."""
        picture = query.side.picture
        inside = dict(zip(picture.objects, tiles, strict=True)) if picture is not None and tiles else {}
        found = []
        for objects in sets:
            side = make_candidate(self.task, self.rng, objects)
            if self.task.target == "crop" and side.picture is not None and objects[0] in inside:
                data: bytes | None = picture_file(side.picture, [inside[objects[0]]])
            else:
                data = drawn(side, self.rng)
            found.append(self.place(side, data))
        return found

    def near_misses(self, query: Query, n: int) -> list[tuple[int, ...]]:
        """Draw ``n`` different wrong object sets; of several objects, each is made from the query's or an earlier one.

        If all were made from the query's, the right answer would be the one that is most like the others.
        """
        if self.task.target not in ("caption", "scene"):
            return wrong_sets(self.task, self.rng, query, n, split=self.filler)
        found = [query.want_objects]
        taken = {frozenset(query.want_objects)}
        while len(found) <= n:
            start = found[int(self.rng.integers(len(found)))]
            objects = wrong_objects(self.task, self.rng, Query(query.side, query.want_modality, start))
            if frozenset(objects) not in taken:
                taken.add(frozenset(objects))
                found.append(objects)
        return found[1:]

    def query(self, i: int, query: Query, near: int) -> tuple[str, list[Placed]]:
        """Write one query, its target and ``near`` near misses; returns the query's picture path and these."""
        tiles, data = _query_picture(query, self.rng)
        path = f"{self.task.name}/{self.task.name}_query_{i}.png" if data is not None else ""
        if data is not None:
            self.writer.picture(f"images/{path}", data)
        self.writer.want(query, path)
        target = self.place(*make_target(self.task, query, tiles, self.rng))
        return path, [target, *self.wrong(self.near_misses(query, near), query, tiles)]

    def fill(self, query: Query, own: list[Placed], bank: list[Placed], n: int) -> list[Placed]:
        """Add other queries' candidates, in random order, until there are ``n``, all of different object sets."""
        found = {frozenset(side.objects): (side, path) for side, path in own}
        for i in self.rng.permutation(len(bank)):
            if len(found) >= n:
                break
            side, path = bank[i]
            if relevance(query, side) < 1:
                found.setdefault(frozenset(side.objects), (side, path))
        missing = n - len(found)
        if missing > 0:
            more = wrong_sets(self.task, self.rng, query, missing, frozenset(found), split=self.filler)
            return list(found.values()) + self.wrong(more, query, [])
        return list(found.values())


def write_eval(
    writer: SplitWriter,
    task: Task,
    seed: int,
    n: int,
    candidates: int,
    advance: Callable[[], None],
    part: Part = "eval",
) -> None:
    """Write ``n`` evaluation or validation queries in the layout of MMEB's evaluation set, the right target first.

    Half of the wrong candidates are made for the query; the others are targets and near misses of other queries.
    Nothing is written for no queries. Validation differs in the split that its queries are made of alone.
    """
    if not n:
        return
    candidates = min(candidates, largest_number_of_candidates(task) or candidates)
    written = _EvalSet(writer, task, seed, part)
    queries = draw_queries(seed, task, task.eval_split if part == "eval" else VALIDATION, n, written.rng)
    found = [written.query(i, query, (candidates - 1) // 2) for i, query in enumerate(queries)]
    bank = [placed for _, own in found for placed in own]
    rows = []
    for query, (path, own) in zip(queries, found, strict=True):
        chosen = written.fill(query, own, bank, candidates)
        rows.append((query.side.text, path, [side.text for side, _ in chosen], [image for _, image in chosen]))
        advance()
    columns = ["qry_text", "qry_img_path", "tgt_text", "tgt_img_path"]
    writer.table(f"{task.name}/test-00000-of-00001.parquet", columns, rows)
