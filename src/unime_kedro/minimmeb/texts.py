"""The words of mini-MMEB: instructions in MMEB's manner, captions, labels and answers.

Object names always follow a space ("a cat", never "cat" first), so that a byte-pair tokenizer sees the same token for a
name wherever it stands; the tiny models depend on it.
"""

from __future__ import annotations

import numpy as np

from unime_kedro.minimmeb.classes import all_classes

#: MMEB's placeholder for the picture
IMAGE = "<|image_1|>"

CLASSIFICATION_QUERY = f"{IMAGE}\nIdentify the object shown in the image.\n"
CAPTION_QUERY = f"{IMAGE}\nFind an image caption describing the given image.\n"
IMAGE_QUERY = "Find me an image that matches the given caption: {caption}\n"
IMAGE_TARGET = f"{IMAGE}\nRepresent the given image.\n"
TWIN_QUERY = f"{IMAGE}\nFind me another image that shows the same objects as the given image.\n"
QUESTION_QUERY = f"{IMAGE}\nRepresent the given image with the following question: {{question}}\n"
CROP_QUERY = f'{IMAGE}\nSelect the portion of the image that isolates the object labeled as "the {{name}}"\n'
CROP_TARGET = f"{IMAGE}\nRepresent the given cropped image of the object.\n"
ANSWER = "the answer is {answer}"

_OPENINGS = ("", "a picture of ", "there is ", "an image showing ", "a scene with ")
_LABELS = ("{a} {n}", "the {n}", "a drawing of {a} {n}", "it is {a} {n}")
_QUESTIONS = ("Which of the {x} and the {y} is in this image?", "Is the {x} or the {y} in this image?")
# Forms that no model is trained on: another wording with three choices, and another meaning.
_CHOICE = "Only one of these can be seen here: {0}, {1} or {2}. Tell me which!"
_BESIDES = "What else do you see here, besides the {x}?"

#: how often an object with a second name is called by it
SYNONYM_SHARE = 0.25


def article(name: str) -> str:
    """Return the indefinite article of ``name``."""
    return "an" if name[0] in "aeiou" else "a"


def word(rng: np.random.Generator, index: int) -> str:
    """Return a name of one object: mostly its own, sometimes a synonym where it has one."""
    found = all_classes()[index]
    if found.synonyms and rng.random() < SYNONYM_SHARE:
        return str(rng.choice(found.synonyms))
    return found.name


def label(rng: np.random.Generator, index: int) -> str:
    """Word one object as a label or an answer, in one of four forms."""
    name = word(rng, index)
    return str(rng.choice(_LABELS)).format(a=article(name), n=name)


def caption(rng: np.random.Generator, objects: tuple[int, ...]) -> str:
    """Word a set of objects as a caption: random order, names, articles and opening."""
    names = [word(rng, int(i)) for i in rng.permutation(objects)]
    definite = rng.random() < 0.3
    parts = [f"the {n}" if definite else f"{article(n)} {n}" for n in names]
    joined = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return str(rng.choice(_OPENINGS)) + joined


def question(rng: np.random.Generator, present: int, absent: int) -> str:
    """Ask which of two objects is there, in random order."""
    x, y = (present, absent) if rng.random() < 0.5 else (absent, present)
    return str(rng.choice(_QUESTIONS)).format(x=word(rng, x), y=word(rng, y))


def choice(rng: np.random.Generator, options: tuple[int, ...]) -> str:
    """Ask which of three objects is there, in random order; a form that no model is trained on."""
    names = [word(rng, int(i)) for i in rng.permutation(options)]
    return _CHOICE.format(*(f"{article(n)} {n}" for n in names))


def besides(rng: np.random.Generator, known: int) -> str:
    """Ask for the other of two objects; a form that no model is trained on."""
    return _BESIDES.format(x=word(rng, known))


def fixed_texts() -> list[str]:
    """Return every wording with the names left out: what a tokenizer has to know besides the names.

    The forms that no model is trained on are not among them.
    """
    captions = [opening + joined for opening in _OPENINGS for joined in ("a , an and a", "the , the and the")]
    return [
        CLASSIFICATION_QUERY,
        CAPTION_QUERY,
        IMAGE_QUERY.format(caption=""),
        IMAGE_TARGET,
        TWIN_QUERY,
        CROP_QUERY.format(name=""),
        CROP_TARGET,
        ANSWER.format(answer=""),
        *(QUESTION_QUERY.format(question=q.format(x="", y="")) for q in _QUESTIONS),
        *(form.format(a=a, n="") for form in _LABELS for a in ("a", "an")),
        *captions,
    ]
