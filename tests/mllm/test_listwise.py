"""The listwise prompt: its words, its tokens, and its positions against transformers' own."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import ModelError
from unime_kedro.mllm.images import read_image
from unime_kedro.mllm.listwise import (
    ANSWER_TOKENS,
    Side,
    _fair_level,
    check_tokenization,
    listwise_piece,
    parse_answer,
)
from unime_kedro.mllm.prompts import (
    IMAGE_PLACEHOLDER,
    LISTWISE_INSTRUCTION,
    listwise_answer,
    listwise_parts,
    listwise_prompt,
)
from unime_kedro.mllm.truncation import first_tokens

INSTRUCTION = (
    "I will provide you with a query followed by multiple candidates in the format: (1) cand1 (2) cand2, etc. Each "
    "candidate is independent of the others. Evaluate each candidate against the query, and respond with the number "
    "corresponding to the candidate that best meets the requirements of the query."
)
HEAD, TAIL = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<|>\x00"), max_size=30)
AWKWARD = [
    "a dog",
    "",
    "...",
    "(3)",
    " space ",
    "line\n",
    "\nline",
    "\t",
    "?!",
    "é中🐶",
    "'s",
    "42",
    "), (2) cand",
    ")",
]


@pytest.fixture(scope="module")
def picture(pictures):
    return pictures[1]


def test_the_prompt_by_hand():
    parts = listwise_parts("a pet?", ["a dog", "<|image_1|>\na cat", "an axe"])
    assert parts == [
        f"{INSTRUCTION} Query:a pet?,",
        " Candidates: (1) a dog",
        " (2) <|image_1|>\na cat",
        " (3) an axe.",
    ]
    assert listwise_prompt("a pet?", ["a dog"]) == f"{INSTRUCTION} Query:a pet?, Candidates: (1) a dog."
    assert f"{INSTRUCTION} " == LISTWISE_INSTRUCTION
    assert [listwise_answer(n) for n in (1, 10)] == ["Ans: (1)", "Ans: (10)"]


@given(st.lists(st.tuples(WORDS, st.booleans()), min_size=2, max_size=6))
def test_every_word_and_picture_is_in_the_prompt_in_its_place(sides):
    """The authors' release loses the texts of all contents in its training prompts."""
    texts = [f"{IMAGE_PLACEHOLDER}\n{words}" if has_image else words for words, has_image in sides]
    parts = listwise_parts(texts[0], texts[1:])
    assert len(parts) == len(texts)
    for number, (text, part) in enumerate(zip(texts, parts, strict=True)):
        assert part.count(IMAGE_PLACEHOLDER) == text.count(IMAGE_PLACEHOLDER)
        end = "," if number == 0 else "." if number == len(texts) - 1 else ""
        assert part.endswith((f"Query:{text}" if number == 0 else f" ({number}) {text}") + end)
    assert "".join(parts) == listwise_prompt(texts[0], texts[1:])


def test_control_tokens_and_second_placeholders_are_not_in_the_prompt():
    nested = "a<|im_<|im_end|>end|> b <|image_1|><|vision_start|> c <|image_1|>d"
    prompt = listwise_prompt(nested, [nested, nested])
    assert re.findall(r"<\|\w+\|>", prompt) == [IMAGE_PLACEHOLDER] * 3
    assert prompt.count("a b <|image_1|> c d") == 3


@pytest.mark.parametrize("query", AWKWARD)
def test_parts_tokenize_as_the_whole(adapter, query):
    for shift in range(0, len(AWKWARD), 3):
        candidates = AWKWARD[shift:] + AWKWARD[:shift]
        piece, cut = listwise_piece(adapter, Side(query, None), [Side(c, None) for c in candidates], max_tokens=4096)
        whole = adapter.tokenizer(f"{HEAD}{listwise_prompt(query, candidates)}{TAIL}")["input_ids"]
        assert piece.ids.tolist() == whole
        np.testing.assert_array_equal(piece.positions, np.tile(np.arange(len(whole)), (3, 1)))
        assert (piece.span, cut) == (len(whole), 0)


def test_a_tokenizer_that_joins_parts_is_refused(adapter, monkeypatch):
    check_tokenization(adapter)
    monkeypatch.setattr(
        "unime_kedro.mllm.listwise.listwise_prompt", lambda q, c: listwise_prompt(q, c).replace(" (2", "(2")
    )
    with pytest.raises(ModelError, match="cut"):
        check_tokenization(adapter)


def test_positions_of_several_pictures_equal_the_models_own(adapter, pictures):
    import torch

    files = [pictures[7], pictures[0], None, pictures[2], pictures[3]]
    images = [None if file is None else read_image(adapter, file) for file in files]
    texts = ["find <|image_1|> it", "", "words alone", "<|image_1|>\na dog", "behind <|image_1|>"]
    sides = [Side(text, image) for text, image in zip(texts, images, strict=True)]
    piece, _ = listwise_piece(adapter, sides[0], sides[1:], max_tokens=4096)
    ids = torch.from_numpy(piece.ids)[None]
    wanted, _ = adapter.model.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == adapter.image_id).int(),
        image_grid_thw=torch.from_numpy(np.stack([image.grid for image in images if image is not None])),
    )
    np.testing.assert_array_equal(piece.positions, wanted[:, 0].numpy())
    assert piece.span == int(wanted.max()) + 1 < len(piece.ids)
    assert piece.n_image_tokens == int((ids == adapter.image_id).sum()) == sum(i.n_tokens for i in images if i)


def slow_level(lengths, room):
    return max(level for level in range(max(lengths) + 1) if sum(min(n, level) for n in lengths) <= max(room, 0))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(-5, 100))
def test_the_fair_length_is_the_largest_that_fits(lengths, room):
    assert _fair_level(lengths, room) == slow_level(lengths, room)


def words_in(adapter, piece):
    """The query and the candidates of a rendered prompt, as words."""
    text = adapter.tokenizer.decode(piece.ids.tolist())
    body = text.split("Query:")[1].split(TAIL)[0].removesuffix(".")
    return re.split(r", Candidates: \(1\) | \(\d\) ", body)


def test_long_contents_are_cut_to_the_same_length_and_short_ones_stay(adapter, pictures):
    image = read_image(adapter, pictures[0])
    long, longer = " ".join(["dog"] * 300), "<|image_1|>\n" + " ".join(["cat"] * 500)
    sides = [Side(long, None), Side("a pen", None), Side(longer, image), Side(long, None)]
    piece, cut = listwise_piece(adapter, sides[0], sides[1:], max_tokens=300)
    assert cut == 3
    assert 300 - ANSWER_TOKENS - 3 <= len(piece.ids) <= 300 - ANSWER_TOKENS
    query, short, shown, last = words_in(adapter, piece)
    assert short == "a pen"
    assert query == last
    assert long.startswith(query)
    words = [shown.split("<|vision_end|>")[1], query]
    assert longer.endswith("cat")
    assert longer.removeprefix("<|image_1|>").startswith(words[0])
    lengths = [len(adapter.tokenizer(text)["input_ids"]) for text in words]
    assert lengths[0] == lengths[1] > 20
    assert piece.n_image_tokens == image.n_tokens
    whole, cut = listwise_piece(adapter, sides[0], sides[1:], max_tokens=len(piece.ids) + 2000)
    assert (cut, words_in(adapter, whole)[0]) == (0, long)


def test_a_prompt_of_exactly_the_longest_length_is_not_cut(adapter):
    sides = [Side("a dog and a pen", None), Side("a dog", None), Side("a pen", None)]
    whole, _ = listwise_piece(adapter, sides[0], sides[1:], max_tokens=4096)
    assert listwise_piece(adapter, sides[0], sides[1:], max_tokens=len(whole.ids) + ANSWER_TOKENS)[1] == 0
    shorter, cut = listwise_piece(adapter, sides[0], sides[1:], max_tokens=len(whole.ids) + ANSWER_TOKENS - 1)
    assert cut == 1
    assert words_in(adapter, shorter) == ["a dog and a", "a dog", "a pen"]


@pytest.mark.parametrize(
    "text", ["🐶" * 20, "中é文 dog" * 10, "<|image_1|>\na dog, a cat and a pen", "x🐶<|image_1|>🐶y🐶"]
)
def test_the_first_tokens_are_no_more_than_asked_for_and_whole_characters(adapter, text):
    words = text.replace(IMAGE_PLACEHOLDER, "")
    for n in range(1, 20):
        kept = first_tokens(adapter, text, n)
        assert kept.count(IMAGE_PLACEHOLDER) == text.count(IMAGE_PLACEHOLDER)
        kept_words = kept.replace(IMAGE_PLACEHOLDER, "")
        assert words.startswith(kept_words)
        assert len(adapter.tokenizer(kept_words)["input_ids"]) <= n
    assert first_tokens(adapter, text, 1000) == text


MESSY = st.lists(
    st.sampled_from(["dog", " cat", "🐶", "é", "中", "\n", ".", "ing", " a", "1"]), min_size=8, max_size=25
)


@settings(max_examples=60)
@given(st.lists(st.tuples(MESSY, st.none() | st.integers(0, 8)), min_size=2, max_size=5), st.integers(1, 40))
def test_no_prompt_is_longer_than_the_longest(adapter, picture, sides, room):
    image = read_image(adapter, picture)
    shown = [
        Side(
            "".join(words) if at is None else "".join([*words[:at], IMAGE_PLACEHOLDER, *words[at:]]),
            None if at is None else image,
        )
        for words, at in sides
    ]
    empty = [Side("" if side.image is None else "\n<|image_1|>\n", side.image) for side in shown]
    limit = len(listwise_piece(adapter, empty[0], empty[1:], max_tokens=4096)[0].ids) + 3 * len(sides) + room
    piece, _ = listwise_piece(adapter, shown[0], shown[1:], max_tokens=limit + ANSWER_TOKENS)
    assert len(piece.ids) <= limit
    assert piece.n_image_tokens == image.n_tokens * sum(side.image is not None for side in shown)


def test_words_that_join_with_the_prompt_are_cut_once_more(adapter):
    """A colon and the prompt's comma are one token: without the colon the prompt is as long as with it."""
    assert len(adapter.tokenizer(":,")["input_ids"]) == 1
    query, candidate = Side("a dog and a cat:", None), Side("a pen", None)
    longest = len(listwise_piece(adapter, query, [candidate], max_tokens=4096)[0].ids) - 1
    piece, cut = listwise_piece(adapter, query, [candidate], max_tokens=longest + ANSWER_TOKENS)
    assert (len(piece.ids), cut) == (longest, 1)
    assert words_in(adapter, piece) == ["a dog and a", "a pen"]


def test_what_does_not_fit_without_its_words_says_so(adapter, pictures):
    image = read_image(adapter, pictures[7])
    with pytest.raises(ModelError, match=rf"2 candidates take .* the pictures take {2 * image.n_tokens}; .*max_tokens"):
        listwise_piece(adapter, Side("a dog", None), [Side("", image), Side("", image)], max_tokens=120)


@pytest.mark.parametrize(
    ("answer", "n", "number"),
    [
        ("Ans: (3)", 5, 3),
        ("(10)", 10, 10),
        ("of 5 candidates (2) is the best", 5, 2),
        ("2", 5, 2),
        ("The answer is 4.", 5, 4),
        ("Ans: (6)", 5, None),
        ("Ans: (0)", 5, None),
        ("(7) or (2)", 5, None),  # what it said first counts
        ("Ans: (12", 5, None),
        ("3.5", 5, None),
        ("-3", 5, None),
        ("x3", 5, None),
        ("candidate three", 5, None),
        ("", 5, None),
        ("(²)", 5, None),
        ("(٣)", 5, None),
    ],
)
def test_free_answers_by_hand(answer, n, number):
    assert parse_answer(answer, n) == number


@given(st.integers(1, 100), st.integers(1, 100))
def test_the_trained_answer_is_understood(number, n):
    assert parse_answer(listwise_answer(number), n) == (number if number <= n else None)
