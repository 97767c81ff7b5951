"""The data sets of mini-MMEB: how a query, its target and a wrong candidate are made from object sets.

A *side* is what stands on one side of a pair: words, and possibly a picture of some objects. A query also says what it
*wants*: a modality and a set of objects. The ground truth follows from these alone (see ``relevance``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from unime_kedro.minimmeb import scenes, texts
from unime_kedro.minimmeb.classes import object_classes

Modality = Literal["text", "image"]


@dataclass(frozen=True)
class Picture:
    """What is drawn: object ids and the cell (0..3) of each; a crop is one object without a scene."""

    objects: tuple[int, ...]
    cells: tuple[int, ...]
    crop: bool = False


@dataclass(frozen=True)
class Side:
    """One side of a pair: its words, its picture (or None), the objects it depicts or names."""

    text: str
    picture: Picture | None
    objects: tuple[int, ...]

    @property
    def modality(self) -> Modality:
        """``image`` when the content is a picture, ``text`` when it is words alone."""
        return "text" if self.picture is None else "image"


@dataclass(frozen=True)
class Query:
    """A query: what is shown or said, and what is wanted."""

    side: Side
    want_modality: Modality
    want_objects: tuple[int, ...]
    #: objects that the query itself offers as wrong answers (the absent one of a question)
    distractors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """One data set: its name, MMEB meta-task and kind of target."""

    name: str
    meta_task: Literal["classification", "vqa", "retrieval", "visual_grounding"]
    target: Literal["label", "caption", "scene", "crop"]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("EmojiObjects", "classification", "label"),
        Task("EmojiPresence", "vqa", "label"),
        Task("EmojiScenes_i2t", "retrieval", "caption"),
        Task("EmojiScenes_t2i", "retrieval", "scene"),
        Task("EmojiCrops", "visual_grounding", "crop"),
    )
}

META_TASKS: dict[str, str] = {task.name: task.meta_task for task in TASKS.values()}


def relevance(query: Query, candidate: Side) -> float:
    """Ground truth in [0, 1]: 0 for the wrong modality, otherwise shared objects over all objects (Jaccard index)."""
    if candidate.modality != query.want_modality:
        return 0.0
    wanted, found = set(query.want_objects), set(candidate.objects)
    return len(wanted & found) / len(wanted | found)


def scene_picture(rng: np.random.Generator, objects: tuple[int, ...]) -> Picture:
    """Place up to four objects into random cells."""
    cells = rng.permutation(4)[: len(objects)]
    return Picture(objects, tuple(int(c) for c in cells))


def make_query(task: Task, rng: np.random.Generator, objects: tuple[int, ...]) -> Query:
    """Make a query of ``task`` over an object set.

    Args:
        task: The data set.
        rng: Source of wording, placing and of the object asked for.
        objects: The objects of the query's picture or caption; classification uses the first.

    Returns:
        The query and what it wants.
    """
    if task.name == "EmojiScenes_t2i":
        text = texts.IMAGE_QUERY.format(caption=texts.caption(rng, objects))
        return Query(Side(text, None, objects), "image", objects)
    if task.name == "EmojiObjects":
        objects = objects[:1]
    picture = scene_picture(rng, objects)
    if task.name == "EmojiObjects":
        return Query(Side(texts.CLASSIFICATION_QUERY, picture, objects), "text", objects)
    if task.name == "EmojiScenes_i2t":
        return Query(Side(texts.CAPTION_QUERY, picture, objects), "text", objects)
    asked = int(rng.choice(objects))
    if task.name == "EmojiCrops":
        text = texts.CROP_QUERY.format(name=object_classes()[asked].name)
        return Query(Side(text, picture, objects), "image", (asked,))
    absent = next(i for i in _rivals(rng, asked) if i not in objects)
    text = texts.QUESTION_QUERY.format(question=texts.question(rng, asked, absent))
    return Query(Side(text, picture, objects), "text", (asked,), (absent,))


def make_candidate(task: Task, rng: np.random.Generator, objects: tuple[int, ...]) -> Side:
    """Make a candidate of the kind that ``task`` looks for, showing or naming ``objects``."""
    if task.target == "label":
        return Side(texts.label(rng, objects[0]), None, objects[:1])
    if task.target == "caption":
        return Side(texts.caption(rng, objects), None, objects)
    if task.target == "scene":
        return Side(texts.IMAGE_TARGET, scene_picture(rng, objects), objects)
    return Side(texts.CROP_TARGET, Picture(objects[:1], (0,), crop=True), objects[:1])


def _rivals(rng: np.random.Generator, index: int) -> list[int]:
    """Return other objects, those of the same subgroup first half of the time, then all in random order."""
    alike = [int(i) for i in rng.permutation(scenes.subgroup_members()[index])] if rng.random() < 0.5 else []
    others = [int(i) for i in rng.permutation(len(object_classes())) if i != index]
    return alike + others


def wrong_objects(task: Task, rng: np.random.Generator, query: Query) -> tuple[int, ...]:
    """Draw an object set that does not fully answer ``query``: a hard, graded negative.

    For captions and scenes one object (60 %), two, or all are exchanged, or one is left out. For labels and crops it is
    the other object of the question, another object of the query's picture, one of the same subgroup, or any other.
    """
    wanted = query.want_objects
    if task.target in ("label", "crop"):
        if query.distractors and rng.random() < 0.5:
            return query.distractors
        in_picture = [o for o in query.side.objects if o not in wanted]
        if in_picture and rng.random() < 0.6:
            return (int(rng.choice(in_picture)),)
        return (next(i for i in _rivals(rng, wanted[0]) if i not in wanted),)
    if len(wanted) == 3 and rng.random() < 0.15:
        left_out = int(rng.integers(3))
        return tuple(o for k, o in enumerate(wanted) if k != left_out)
    times = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    objects = wanted
    for _ in range(min(times, len(wanted))):
        objects = scenes.exchange_one(rng, objects)
    return objects if set(objects) != set(wanted) else scenes.exchange_one(rng, wanted)
