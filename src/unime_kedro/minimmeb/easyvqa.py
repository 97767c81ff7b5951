"""Real questions: the data set easy-VQA (5,000 pictures of one coloured shape, 48,248 questions; MIT licence).

Source: https://github.com/vzhou842/easy-VQA, installed as the package ``easy-vqa``; its pictures are copied as they
are. Two choices are ours. Only pictures whose shape is at least ``LEAST_PIXELS`` wide and high are used (nearly half of
them): a tiny model sees 28 pixels as one patch and cannot tell a circle of 8 from a square of 8. Three of four
questions are answered by yes or no; answers are drawn evenly here, so that one of seven is.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

SHAPES = ("circle", "rectangle", "triangle")
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
#: every answer of the data set, by kind: a wrong answer of the same kind is a hard one
KINDS = (SHAPES, COLORS, ("no", "yes"))
ANSWERS: tuple[str, ...] = tuple(answer for kind in KINDS for answer in kind)
#: words that are never right, so that a question has as many candidates as those of other data sets
EXTRA_ANSWERS = ("hexagon", "orange", "pentagon", "pink", "purple", "star", "white")

#: least width and height of the shape in a picture that is used, of 64 pixels
LEAST_PIXELS = 20

#: truth id of ``(ANSWERS + EXTRA_ANSWERS)[0]``; object classes are below
FIRST_ID = 1000

#: split -> (part of the package, first picture, picture behind the last)
_PICTURES = {
    "pretrain": ("train", 0, 3000),
    "train": ("train", 3000, 3700),
    "calibration": ("train", 3700, 4000),
    "eval": ("test", 0, 500),
    "judge_test": ("test", 500, 1000),
}


@dataclass(frozen=True)
class Question:
    """A question about a picture (``train/17``), and the truth id of its answer."""

    text: str
    picture: str
    answer: int


def answer_word(truth_id: int) -> str:
    """Return the word of an answer's truth id."""
    return (ANSWERS + EXTRA_ANSWERS)[truth_id - FIRST_ID]


def answer_ids(*, extra: bool) -> list[int]:
    """Return the truth ids of all answers, with or without the words that are never right."""
    return list(range(FIRST_ID, FIRST_ID + len(ANSWERS) + (len(EXTRA_ANSWERS) if extra else 0)))


def same_kind(truth_id: int) -> list[int]:
    """Return the other answers of the same kind (shape, colour, yes or no)."""
    kind = next(kind for kind in KINDS if answer_word(truth_id) in kind)
    return [i for i in answer_ids(extra=False) if answer_word(i) in kind and i != truth_id]


@cache
def questions(split: str) -> dict[str, tuple[Question, ...]]:
    """Return answer -> its questions about pictures of ``split``, in the package's order."""
    part, first, end = _PICTURES[split]
    source = resources.files("easy_vqa").joinpath(f"data/{part}/questions.json")
    found: dict[str, list[Question]] = {answer: [] for answer in ANSWERS}
    for text, answer, picture in json.loads(source.read_text(encoding="utf-8")):
        if first <= picture < end and shape_pixels(f"{part}/{picture}") >= LEAST_PIXELS:
            found[answer].append(Question(text, f"{part}/{picture}", FIRST_ID + ANSWERS.index(answer)))
    return {answer: tuple(asked) for answer, asked in found.items()}


def distinct_questions(split: str) -> dict[str, tuple[Question, ...]]:
    """Return :func:`questions` with each question about a picture once; the package has some several times."""
    return {answer: tuple(dict.fromkeys(asked)) for answer, asked in questions(split).items()}


def draw_questions(rng: np.random.Generator, split: str, n: int) -> list[Question]:
    """Draw ``n`` different questions of ``split``, answers in turn, each time about the picture used least so far.

    Raises:
        ValueError: If there are not so many.
    """
    left = {
        answer: [asked[i] for i in rng.permutation(len(asked))] for answer, asked in distinct_questions(split).items()
    }
    if n > sum(map(len, left.values())):
        raise ValueError(f"easy-VQA has {sum(map(len, left.values()))} questions in split {split}, {n} were asked for")
    used: Counter[str] = Counter()
    found: list[Question] = []
    while len(found) < n:
        for answer in (ANSWERS[i] for i in rng.permutation(len(ANSWERS))):
            if left[answer] and len(found) < n:
                question = min(left[answer], key=lambda q: used[q.picture])
                left[answer].remove(question)
                used[question.picture] += 1
                found.append(question)
    return found


def draw_question(rng: np.random.Generator, split: str) -> Question:
    """Draw a question of ``split``: first an answer, all equally likely, then one of its questions."""
    found = questions(split)[ANSWERS[rng.integers(len(ANSWERS))]]
    return found[rng.integers(len(found))]


def looks(picture: str) -> tuple[int, ...]:
    """Return the truth ids of a picture's shape and colour, as far as its questions tell (one in ten lacks one)."""
    part, number = picture.split("/")
    return tuple(FIRST_ID + ANSWERS.index(word) for word in _looks(part)[int(number)] if word)


@cache
def _looks(part: str) -> dict[int, tuple[str, str]]:
    """Return picture -> its shape and colour, "" where no question tells."""
    source = resources.files("easy_vqa").joinpath(f"data/{part}/questions.json")
    told: dict[int, set[str]] = {}
    for text, answer, picture in json.loads(source.read_text(encoding="utf-8")):
        words = text.rstrip("?").split()
        denied = "not" in words or "no" in words
        # "what color is the rectangle?" tells the shape, too; "is there not a red shape?" tells red when it is denied
        says = words[0] == "what" or (answer == "yes") != denied
        told.setdefault(picture, set()).update([answer, *words] if says else [])
    return {
        picture: ("".join(known & set(SHAPES)), "".join(known & set(COLORS))) for picture, known in sorted(told.items())
    }


@cache
def shape_pixels(picture: str) -> int:
    """Return the smaller one of width and height of a picture's shape, in pixels: what differs from the background."""
    import io

    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(picture_bytes(picture))).convert("RGB"), dtype=np.int64)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    rows, columns = np.nonzero(np.abs(pixels - background).sum(axis=2) > 60)
    return int(min(np.ptp(rows), np.ptp(columns))) + 1


def picture_bytes(picture: str) -> bytes:
    """Return the PNG file of a picture, 64 x 64 pixels."""
    part, number = picture.split("/")
    return resources.files("easy_vqa").joinpath(f"data/{part}/images/{number}.png").read_bytes()
