"""The words of mini-MMEB: instructions in MMEB's manner, captions, labels and answers.

Object names always follow a space ("a cat", never "cat" first), so that a byte-pair tokenizer sees the same token for a
name wherever it stands; the tiny models depend on it.
"""

from __future__ import annotations

import numpy as np

from unime_kedro.minimmeb.classes import object_classes

#: MMEB's placeholder for the picture
IMAGE = "<|image_1|>"

CLASSIFICATION_QUERY = f"{IMAGE}\nIdentify the object shown in the image.\n"
CAPTION_QUERY = f"{IMAGE}\nFind an image caption describing the given image.\n"
IMAGE_QUERY = "Find me an image that matches the given caption: {caption}\n"
IMAGE_TARGET = f"{IMAGE}\nRepresent the given image.\n"
QUESTION_QUERY = f"{IMAGE}\nRepresent the given image with the following question: {{question}}\n"
CROP_QUERY = f'{IMAGE}\nSelect the portion of the image that isolates the object labeled as "the {{name}}"\n'
CROP_TARGET = f"{IMAGE}\nRepresent the given cropped image of the object.\n"

_OPENINGS = ("", "a picture of ", "there is ", "an image showing ", "a scene with ")
_LABELS = ("{a} {n}", "the {n}", "a drawing of {a} {n}", "it is {a} {n}")
_QUESTIONS = ("Which of the {x} and the {y} is in this image?", "Is the {x} or the {y} in this image?")


def article(name: str) -> str:
    """Return the indefinite article of ``name``."""
    return "an" if name[0] in "aeiou" else "a"


def label(rng: np.random.Generator, index: int) -> str:
    """Word one object as a label or an answer, in one of four forms."""
    name = object_classes()[index].name
    return str(rng.choice(_LABELS)).format(a=article(name), n=name)


def caption(rng: np.random.Generator, objects: tuple[int, ...]) -> str:
    """Word a set of objects as a caption: random order, articles and opening."""
    names = [object_classes()[i].name for i in rng.permutation(objects)]
    definite = rng.random() < 0.3
    parts = [f"the {n}" if definite else f"{article(n)} {n}" for n in names]
    joined = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return str(rng.choice(_OPENINGS)) + joined


def question(rng: np.random.Generator, present: int, absent: int) -> str:
    """Ask which of two objects is there, in random order."""
    x, y = (present, absent) if rng.random() < 0.5 else (absent, present)
    classes = object_classes()
    return str(rng.choice(_QUESTIONS)).format(x=classes[x].name, y=classes[y].name)


def fixed_texts() -> list[str]:
    """Return every wording with the names left out: what a tokenizer has to know besides the names."""
    captions = [opening + joined for opening in _OPENINGS for joined in ("a , an and a", "the , the and the")]
    return [
        CLASSIFICATION_QUERY,
        CAPTION_QUERY,
        IMAGE_QUERY.format(caption=""),
        IMAGE_TARGET,
        CROP_QUERY.format(name=""),
        CROP_TARGET,
        *(QUESTION_QUERY.format(question=q.format(x="", y="")) for q in _QUESTIONS),
        *(form.format(a=a, n="") for form in _LABELS for a in ("a", "an")),
        *captions,
    ]
