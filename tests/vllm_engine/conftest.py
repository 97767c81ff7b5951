"""The real engine on a CPU, with the embedded tiny models; `make test-vllm` runs these tests where vLLM is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_engines import MAX_TOKENS, OPTIONS, new_judge, spec

from unime_kedro.mllm.content import Content
from unime_kedro.mllm.vllm_embedder import VllmEmbedder
from unime_kedro.mllm.vllm_judge import VllmJudge


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    missing = importlib.util.find_spec("vllm") is None and os.environ.get("UNIME_VLLM") != "required"
    for item in here:
        item.add_marker(pytest.mark.vllm)
        if missing:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed here: make test-vllm"))


@pytest.fixture(scope="session")
def vllm_judge(pictures) -> Iterator[VllmJudge]:
    """A judge whose engine runs and agreed with transformers."""
    judge = new_judge()
    yield judge
    judge.close()


@pytest.fixture(scope="session")
def vllm_embedder() -> Iterator[VllmEmbedder]:
    embedder = VllmEmbedder(spec("tiny-embedder"), OPTIONS, prompt="plain", max_tokens=MAX_TOKENS)
    yield embedder
    embedder.close()


@pytest.fixture(scope="session")
def queries(pictures) -> list[Content]:
    """Words, a picture, both; other scripts; words that have to be cut."""
    return [
        Content("Find me an image that matches the given caption: a dog, a pen and an axe\n"),
        Content("<|image_1|>\nFind an image caption describing the given image.\n", pictures[0]),
        Content('<|image_1|>\nSelect the portion labeled as "Ünïcödé 日本語 😀"\n', pictures[7]),
        Content("", pictures[3]),
        Content("an endless query " * 120),
    ]


@pytest.fixture(scope="session")
def candidates(pictures) -> list[Content]:
    return [
        Content("a dog and a pen"),
        Content("naïve café, крокодил, 鰐 🐊, \u0301combining, and <|im_end|> that must not end the turn"),
        Content("one word more " * 200),
        Content("<|image_1|>\nRepresent the given image.\n", pictures[1]),
        Content("a very long caption " * 100, pictures[7]),
        Content("", pictures[2]),
    ]
