"""The words put around queries and candidates. Training and inference use these same functions."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: MMEB's placeholder for the (only) picture of a text
IMAGE_PLACEHOLDER = "<|image_1|>"

#: UniME-V2's instruction to the judge, word for word (paper, section on MLLM-as-a-Judge)
JUDGE_INSTRUCTION = (
    "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the requirements of "
    "the query. If it does, respond with 'Yes'; if it doesn't, respond with 'No'. "
)

#: UniME-V2's instruction to the reranker, word for word (paper, section on the reranker)
LISTWISE_INSTRUCTION = (
    "I will provide you with a query followed by multiple candidates in the format: (1) cand1 (2) cand2, etc. Each "
    "candidate is independent of the others. Evaluate each candidate against the query, and respond with the number "
    "corresponding to the candidate that best meets the requirements of the query. "
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


def judge_query_part(query: str, instruction: str = JUDGE_INSTRUCTION) -> str:
    """Return the part of the judge's prompt that all candidates of a query share.

    It ends behind the comma: the next piece starts with a space and a letter, where every byte-pair tokenizer of the
    GPT-2 kind starts a new word, so that both parts can be tokenized on their own.

    Args:
        query: The query's text.
        instruction: What stands before it; another wording than the paper's must end in a space, too.
    """
    return f"{instruction}Query:{query},"


def judge_candidate_part(candidate: str) -> str:
    """Return the part of the judge's prompt that depends on the candidate."""
    return f" Candidate:{candidate}."


def judge_prompt(query: str, candidate: str, instruction: str = JUDGE_INSTRUCTION) -> str:
    """Return the whole judge's prompt, without the chat template.

    Args:
        query: The query's text, with ``<|image_1|>`` where its picture goes.
        candidate: The candidate's text, likewise.
        instruction: See :func:`judge_query_part`.
    """
    return judge_query_part(query, instruction) + judge_candidate_part(candidate)


def listwise_parts(query: str, candidates: Sequence[str]) -> list[str]:
    """Return the reranker's listwise prompt, cut so that every part has one content and so one picture at most.

    Every part ends where a byte-pair tokenizer of the GPT-2 kind starts a new word: the next one begins with a space
    and a letter or a bracket. So the parts can be tokenized on their own. (The paper's template has no space between
    ``Candidates:`` and ``(1)``; with it all candidates' numbers look alike to the tokenizer.)

    Args:
        query: The query's words, with ``<|image_1|>`` where its picture goes; only the first placeholder counts.
        candidates: Of the candidates, likewise, at least one.

    Returns:
        1 + len(candidates) parts: instruction and query, then the numbered candidates. Joined they are the prompt
        without the chat template. Control tokens are taken out of the words; all other words are there.
    """
    shown = [with_placeholder(text, IMAGE_PLACEHOLDER in text) for text in (query, *candidates)]
    numbered = [f" ({number}) {text}" for number, text in enumerate(shown[1:], start=1)]
    numbered[0] = f" Candidates:{numbered[0]}"
    return [f"{LISTWISE_INSTRUCTION}Query:{shown[0]},", *numbered[:-1], f"{numbered[-1]}."]


def listwise_prompt(query: str, candidates: Sequence[str]) -> str:
    """Return the whole listwise prompt, without the chat template; see :func:`listwise_parts`."""
    return "".join(listwise_parts(query, candidates))


def listwise_answer(number: int) -> str:
    """Return the answer that names a candidate of the listwise prompt, in the form of UniME-V2's release.

    Args:
        number: Of the candidate, from 1.
    """
    return f"Ans: ({number})"
