"""The data sets of mini-MMEB: how a query, its target and a wrong candidate are made.

A *side* is what stands on one side of a pair: words, and possibly a picture. A query also says what it *wants*: a
modality and a set of objects (or one answer). The ground truth follows from these alone (see ``relevance``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from unime_kedro.minimmeb import easyvqa, scenes, texts
from unime_kedro.minimmeb.drawing import Style

Modality = Literal["text", "image"]


@dataclass(frozen=True)
class Picture:
    """What is drawn: object ids and the cell (0..3) of each; a crop is one object without a scene.

    A picture with a ``source`` is not drawn but taken from easy-VQA; it has no objects.
    """

    objects: tuple[int, ...]
    cells: tuple[int, ...]
    crop: bool = False
    style: Style = "openmoji"
    source: str = ""


@dataclass(frozen=True)
class Side:
    """One side of a pair: its words, its picture (or None), the truth ids of what it depicts or names."""

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
    #: objects that the query itself offers as wrong answers (the absent ones of a question)
    distractors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """One data set: its name, MMEB meta-task, what is asked and what kind of target is wanted."""

    name: str
    meta_task: Literal["classification", "vqa", "retrieval", "visual_grounding"]
    ask: Literal["object", "presence", "real", "caption", "scene", "twin", "crop", "choice", "besides"]
    target: Literal["label", "answer", "caption", "scene", "crop"]
    #: why it is out of distribution, "" if it is not: such a data set has no training pairs
    unseen: str = ""
    style: Style = "openmoji"

    @property
    def eval_split(self) -> str:
        """The split of object sets that its evaluation queries are made of."""
        return scenes.COMBINATIONS if self.unseen == "combinations" else "eval"


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("EmojiObjects", "classification", "object", "label"),
        Task("EmojiPresence", "vqa", "presence", "label"),
        Task("EasyVQA", "vqa", "real", "answer"),
        Task("EmojiScenes_i2t", "retrieval", "caption", "caption"),
        Task("EmojiScenes_t2i", "retrieval", "scene", "scene"),
        Task("EmojiTwins", "retrieval", "twin", "scene"),
        Task("EmojiCrops", "visual_grounding", "crop", "crop"),
        Task("TwemojiObjects", "classification", "object", "label", "rendering", "twemoji"),
        Task("EmojiChoice", "vqa", "choice", "label", "question form"),
        Task("EmojiBesides", "vqa", "besides", "label", "question form"),
        Task("EmojiCombinations_i2t", "retrieval", "caption", "caption", "combinations"),
        Task("EmojiCombinations_t2i", "retrieval", "scene", "scene", "combinations"),
        Task("TwemojiCrops", "visual_grounding", "crop", "crop", "rendering", "twemoji"),
    )
}

META_TASKS: dict[str, str] = {task.name: task.meta_task for task in TASKS.values()}
#: data sets with training pairs (in distribution)
TRAIN_TASKS: dict[str, Task] = {name: task for name, task in TASKS.items() if not task.unseen}


def relevance(query: Query, candidate: Side) -> float:
    """Ground truth in [0, 1]: 0 for the wrong modality, otherwise shared objects over all objects (Jaccard index)."""
    if candidate.modality != query.want_modality:
        return 0.0
    wanted, found = set(query.want_objects), set(candidate.objects)
    return len(wanted & found) / len(wanted | found)


def scene_picture(rng: np.random.Generator, objects: tuple[int, ...], style: Style = "openmoji") -> Picture:
    """Place up to four objects into random cells."""
    cells = rng.permutation(4)[: len(objects)]
    return Picture(objects, tuple(int(c) for c in cells), style=style)


def draw_query(task: Task, rng: np.random.Generator, split: str) -> Query:
    """Draw a query of ``task`` at random from a split of ``scenes.SPLIT_BUCKETS`` (or of unseen things)."""
    if task.ask == "real":
        return real_query(easyvqa.draw_question(rng, split))
    size = 2 if task.ask == "besides" else int(rng.integers(2, 4))
    return make_query(task, rng, scenes.random_set(rng, size, split))


def real_query(question: easyvqa.Question) -> Query:
    """Make a query of one of easy-VQA's questions; what its picture shows is in the answer alone."""
    picture = Picture((), (), crop=True, source=question.picture)
    side = Side(texts.QUESTION_QUERY.format(question=question.text), picture, ())
    return Query(side, "text", (question.answer,))


def make_query(task: Task, rng: np.random.Generator, objects: tuple[int, ...]) -> Query:
    """Make a query of ``task`` over an object set.

    Args:
        task: The data set; not of easy-VQA's real questions.
        rng: Source of wording, placing and of the object asked for.
        objects: The objects of the query's picture or caption; classification uses one of them.

    Returns:
        The query and what it wants.
    """
    if task.ask == "scene":
        text = texts.IMAGE_QUERY.format(caption=texts.caption(rng, objects))
        return Query(Side(text, None, objects), "image", objects)
    if task.ask == "object":
        objects = (objects[int(rng.integers(len(objects)))],)
    if task.ask == "besides":
        objects = tuple(int(i) for i in rng.permutation(objects)[:2])
    picture = scene_picture(rng, objects, task.style)
    simple = {
        "object": (texts.CLASSIFICATION_QUERY, "text"),
        "caption": (texts.CAPTION_QUERY, "text"),
        "twin": (texts.TWIN_QUERY, "image"),
    }
    if task.ask in simple:
        text, modality = simple[task.ask]
        return Query(Side(text, picture, objects), modality, objects)  # type: ignore[arg-type]
    asked = int(rng.choice(objects))
    if task.ask == "crop":
        text = texts.CROP_QUERY.format(name=texts.word(rng, asked))
        return Query(Side(text, picture, objects), "image", (asked,))
    question, distractors = _question(task, rng, asked, objects)
    text = texts.QUESTION_QUERY.format(question=question)
    return Query(Side(text, picture, objects), "text", (asked,), distractors)


def _question(
    task: Task, rng: np.random.Generator, asked: int, objects: tuple[int, ...]
) -> tuple[str, tuple[int, ...]]:
    """Return a question whose answer is ``asked``, and the wrong answers that it offers."""
    if task.ask == "besides":
        known = next(o for o in objects if o != asked)
        return texts.besides(rng, known), (known,)
    absent = tuple(i for i in _rivals(rng, asked) if i not in objects)
    if task.ask == "presence":
        return texts.question(rng, asked, absent[0]), absent[:1]
    return texts.choice(rng, (asked, *absent[:2])), absent[:2]


def make_candidate(task: Task, rng: np.random.Generator, objects: tuple[int, ...]) -> Side:
    """Make a candidate of the kind that ``task`` looks for, showing or naming ``objects``."""
    if task.target == "answer":
        return Side(texts.ANSWER.format(answer=easyvqa.answer_word(objects[0])), None, objects[:1])
    if task.target == "label":
        return Side(texts.label(rng, objects[0]), None, objects[:1])
    if task.target == "caption":
        return Side(texts.caption(rng, objects), None, objects)
    if task.target == "scene":
        return Side(texts.IMAGE_TARGET, scene_picture(rng, objects, task.style), objects)
    return Side(texts.CROP_TARGET, Picture(objects[:1], (0,), crop=True, style=task.style), objects[:1])


def _rivals(rng: np.random.Generator, index: int) -> list[int]:
    """Return other objects, those of the same subgroup first half of the time, then all in random order."""
    alike = [int(i) for i in rng.permutation(scenes.subgroup_members()[index])] if rng.random() < 0.5 else []
    side = scenes.members(scenes.NOVEL if index >= scenes.N_CLASSES else "pretrain")
    others = [side.start + int(i) for i in rng.permutation(len(side))]
    return [i for i in dict.fromkeys(alike + others) if i != index]


def wrong_objects(task: Task, rng: np.random.Generator, query: Query, split: str | None = None) -> tuple[int, ...]:
    """Draw an object set that does not fully answer ``query``: a hard, graded negative.

    With a ``split``, sets of several objects belong to it. Training needs that: otherwise a model learns that sets of
    other splits are always wrong, and has seen the sets that it is tested on.

    For captions and scenes one object (60 %), two, or all are exchanged, or one is left out. For labels and crops it is
    another object of the question, another object of the query's picture, one of the same subgroup, or any other. For
    easy-VQA it is mostly an answer of the same kind.
    """
    wanted = query.want_objects
    if task.target == "answer":
        alike = easyvqa.same_kind(wanted[0])
        others = alike if rng.random() < 0.8 else [i for i in easyvqa.answer_ids(extra=False) if i not in wanted]
        return (int(rng.choice(others)),)
    if task.target in ("label", "crop"):
        if query.distractors and rng.random() < 0.5:
            return (int(rng.choice(query.distractors)),)
        in_picture = [o for o in query.side.objects if o not in wanted]
        if in_picture and rng.random() < 0.6:
            return (int(rng.choice(in_picture)),)
        return (next(i for i in _rivals(rng, wanted[0]) if i not in wanted),)
    for _ in range(100):
        objects = _wrong_set(rng, wanted)
        if set(objects) != set(wanted) and (split is None or scenes.in_split(objects, split)):
            return objects
    return scenes.random_set(rng, len(wanted), split or "pretrain")


def _wrong_set(rng: np.random.Generator, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Leave one of three objects out, or exchange one, two or all; may come back to where it began."""
    if len(wanted) == 3 and rng.random() < 0.15:
        left_out = int(rng.integers(3))
        return tuple(o for k, o in enumerate(wanted) if k != left_out)
    times = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    objects = wanted
    for _ in range(min(times, len(wanted))):
        objects = scenes.exchange_one(rng, objects)
    return objects


def hard_objects(task: Task, rng: np.random.Generator, query: Query) -> tuple[int, ...]:
    """Draw an object set with exactly one thing wrong, from the same subgroup where there is one: the judge's test.

    For a question that offers wrong answers it is one of these, so that the picture alone decides. For other labels and
    crops it is another object of the picture or one of the same subgroup, equally often where there are both; for
    easy-VQA another answer of the same kind.
    """
    wanted = query.want_objects
    if task.target == "answer":
        return (int(rng.choice(easyvqa.same_kind(wanted[0]))),)
    if task.target in ("label", "crop"):
        in_picture = [o for o in query.side.objects if o not in wanted]
        alike = [i for i in scenes.subgroup_members()[wanted[0]] if i not in query.side.objects]
        if task.ask in ("presence", "choice"):
            in_picture, alike = [], []
        pools = [pool for pool in (query.distractors, in_picture, alike) if pool]
        if not pools:
            return (_rivals(rng, wanted[0])[0],)
        return (int(rng.choice(pools[int(rng.integers(len(pools)))])),)
    return scenes.exchange_one(rng, wanted, alike=1.0)
