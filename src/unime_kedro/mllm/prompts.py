"""The words put around queries and candidates. Training and inference use these same functions."""

from __future__ import annotations

import re

#: MMEB's placeholder for the (only) picture of a text
IMAGE_PLACEHOLDER = "<|image_1|>"

#: UniME-V2's instruction to the judge, word for word (paper, section on MLLM-as-a-Judge)
JUDGE_INSTRUCTION = (
    "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the requirements of "
    "the query. If it does, respond with 'Yes'; if it doesn't, respond with 'No'. "
)

# Words from a data set must not end a turn or open a picture: everything that looks like a control token goes.
_CONTROL = re.compile(r"<\|[A-Za-z0-9_]+\|>")


def with_placeholder(text: str, has_image: bool) -> str:
    """Make a text's placeholder agree with whether there is a picture.

    Args:
        text: Words, possibly with ``<|image_1|>``.
        has_image: Whether the content has a picture.

    Returns:
        The text with exactly one placeholder if there is a picture (in front, on its own line, when the text has
        none; later repetitions are dropped), and with none otherwise. Control tokens such as ``<|im_end|>`` are
        taken out of the words.
    """
    head, found, tail = text.partition(IMAGE_PLACEHOLDER)
    if not has_image:
        return without_control_tokens(head + tail)
    head, tail = without_control_tokens(head), without_control_tokens(tail)
    if found:
        return head + IMAGE_PLACEHOLDER + tail
    return f"{IMAGE_PLACEHOLDER}\n{head}" if head else IMAGE_PLACEHOLDER


def without_control_tokens(text: str) -> str:
    """Take every ``<|name|>`` out of a text, also those that only appear when another is taken out."""
    while (cleaned := _CONTROL.sub("", text)) != text:
        text = cleaned
    return text


def judge_query_part(query: str) -> str:
    """Return the part of the judge's prompt that all candidates of a query share.

    It ends behind the comma: the next piece starts with a space and a letter, where every byte-pair tokenizer of the
    GPT-2 kind starts a new word, so that both parts can be tokenized on their own.
    """
    return f"{JUDGE_INSTRUCTION}Query:{query},"


def judge_candidate_part(candidate: str) -> str:
    """Return the part of the judge's prompt that depends on the candidate."""
    return f" Candidate:{candidate}."


def judge_prompt(query: str, candidate: str) -> str:
    """Return the whole judge's prompt, without the chat template.

    Args:
        query: The query's text, with ``<|image_1|>`` where its picture goes.
        candidate: The candidate's text, likewise.
    """
    return judge_query_part(query) + judge_candidate_part(candidate)
