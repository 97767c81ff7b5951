"""Another instruction is another prompt: other logits, another key in the store."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from unime_kedro.errors import ModelError
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.judge import PrefixJudge

PAPER = (
    "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the requirements of "
    "the query. If it does, respond with 'Yes'; if it doesn't, respond with 'No'. Query:<query>, Candidate:<candidate>."
)
WORDING = "Does the candidate match? Yes or No. "


@pytest.mark.parametrize("share_prefix", [True, False])
def test_the_model_reads_the_other_words(adapter, share_prefix: bool) -> None:
    import torch

    judge = PrefixJudge(adapter, batch_size=4, instruction=WORDING, share_prefix=share_prefix)
    texts = ["a dog", "an axe and a pen"]
    found = judge.judge(Content("find a dog"), [Content(text) for text in texts])
    for text, yes, no in zip(texts, found.yes, found.no, strict=True):
        words = f"<|im_start|>user\n{WORDING}Query:find a dog, Candidate:{text}.<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([adapter.tokenizer(words)["input_ids"]])
        adapter.model.model.rope_deltas = None
        with torch.no_grad():
            last = adapter.model(input_ids=ids, use_cache=False).logits[0, -1].float().numpy()
        wanted = last[[adapter.tokenizer(word)["input_ids"][0] for word in ("Yes", "No")]]
        np.testing.assert_allclose([yes, no], wanted, atol=1e-4)
    plain = PrefixJudge(adapter, batch_size=4).judge(Content("find a dog"), [Content(text) for text in texts])
    assert not np.allclose(plain.yes - plain.no, found.yes - found.no, atol=1e-3)


def test_the_identity_says_which_words(adapter) -> None:
    paper, other = (PrefixJudge(adapter, batch_size=4, **more).identity() for more in ({}, {"instruction": WORDING}))
    # the key of every store that was written so far
    assert paper["prompt"] == hashlib.sha256(PAPER.encode()).hexdigest()[:16]
    assert other["prompt"] != paper["prompt"]
    assert {**other, "prompt": ""} == {**paper, "prompt": ""}


def test_a_long_instruction_takes_its_room(adapter) -> None:
    with pytest.raises(ModelError, match="leaves no room"):
        PrefixJudge(adapter, batch_size=4, max_tokens=200, instruction="word " * 200)
