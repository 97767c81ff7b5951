"""Make words fit: what is too long loses words at its end, never a picture and never a piece of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unime_kedro.errors import ModelError
from unime_kedro.mllm.prompts import IMAGE_PLACEHOLDER, with_placeholder

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter


def fit_text(
    adapter: BackboneAdapter, text: str, *, has_image: bool, n_image_tokens: int, limit: int
) -> tuple[str, bool]:
    """Cut a content's words so that, with its picture, it takes at most ``limit`` tokens.

    Args:
        adapter: Whose tokenizer counts.
        text: Words, possibly with ``<|image_1|>``.
        has_image: Whether there is a picture.
        n_image_tokens: Visual tokens of the picture.
        limit: Most tokens of words and picture together.

    Returns:
        The text with its placeholder in order, and whether words were cut.

    Raises:
        ModelError: If the picture alone does not fit.
    """
    text = clean_text(adapter, text, has_image)
    # Cheap and safe: no tokenizer makes more tokens than there are bytes, so short texts need no counting.
    if len(text.encode()) + n_image_tokens <= limit:
        return text, False
    room = limit - n_image_tokens - 2
    if room < 1:
        raise ModelError(
            f"a picture of {n_image_tokens} visual tokens does not fit into the {limit} tokens that one content may "
            "take; raise max_tokens or lower max_pixels."
        )
    kept = first_tokens(adapter, text, room)
    return kept, kept != text


def clean_text(adapter: BackboneAdapter, text: str, has_image: bool) -> str:
    """Make a text's placeholder agree with whether there is a picture, and take all control tokens out of its words.

    Args:
        adapter: Whose tokenizer says what else than ``<|name|>`` is a control token (``<image>``, ``</img>``).
        text: Words, possibly with ``<|image_1|>``.
        has_image: Whether the content has a picture.
    """
    # again and again: what is taken out may join what stood beside it to another
    while (cleaned := adapter.without_special_tokens(with_placeholder(text, has_image))) != text:
        text = cleaned
    return text


def first_tokens(adapter: BackboneAdapter, text: str, n: int) -> str:
    """Return a text without the words behind its first ``n`` tokens; a picture's placeholder stays, and counts nothing.

    Args:
        adapter: Whose tokenizer counts.
        text: Words, possibly with ``<|image_1|>``.
        n: Tokens to keep, at least 1.
    """
    words = text.replace(IMAGE_PLACEHOLDER, "")
    offsets = adapter.tokenizer(words, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if len(offsets) <= n:
        return text
    # a character of several tokens is kept whole or not at all
    kept = words[: min(offsets[n - 1][1], offsets[n][0])]
    at = text.find(IMAGE_PLACEHOLDER)
    return kept if at < 0 else kept[:at] + IMAGE_PLACEHOLDER + kept[at:]
