"""The judge in use, and the same with one thing changed each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from unime_kedro.evaluation.rescoring import Kind
from unime_kedro.parameters import JudgeCardParameters, JudgeParameters
from unime_kedro.pipelines.pool.nodes import model_spec

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter
    from unime_kedro.mllm.judge import PrefixJudge

#: names of the scorings that every card has
REFERENCE, BATCHES, FULL_PROMPTS = "as in use", "other batches", "no shared prefix"


class Scoring(NamedTuple):
    """One way to judge the sample.

    Attributes:
        kind: What it is made for.
        variant: What is different.
        judge: The backend.
        temperature: Of its scores.
        backwards: Whether candidates come in the opposite order.
    """

    kind: Kind
    variant: str
    judge: PrefixJudge
    temperature: float
    backwards: bool = False


def scorings(judge: JudgeParameters, card: JudgeCardParameters) -> Iterator[Scoring]:
    """Yield the ways to judge the sample, the judge in use first; one model at a time is loaded."""
    from unime_kedro.mllm.adapters import load_adapter

    spec, temperature = model_spec(judge), temperature_of(judge)
    adapter = load_adapter(spec)
    other_size = judge.batch_size // 4 + 1 if judge.batch_size > 1 else 2
    yield Scoring("reference", REFERENCE, backend(judge, adapter), temperature)
    yield Scoring("noise", BATCHES, backend(judge, adapter, batch_size=other_size), temperature, backwards=True)
    yield Scoring("noise", FULL_PROMPTS, backend(judge, adapter, share_prefix=False), temperature)
    for name, words in card.wordings.items():
        instruction = f"{words.strip()} "  # "Query:" follows, as in the paper's prompt
        yield Scoring("wording", name, backend(judge, adapter, instruction=instruction), temperature)
    dtype = other_precision(card.precision, str(adapter.model.dtype))
    del adapter
    if dtype is not None:
        other = load_adapter(replace(spec, dtype=dtype))
        yield Scoring("noise", dtype, backend(judge, other), temperature)
        del other
    if card.second_judge is not None:
        second = judge.model_copy(update=card.second_judge.model_dump() | {"temperature": "model"})
        found = load_adapter(model_spec(second))
        yield Scoring("second", second.model, backend(second, found), temperature_of(second))


def other_precision(wanted: str | None, in_use: str) -> str | None:
    """Return the number format to compare with, None for none.

    Args:
        wanted: ``judge_card.precision``.
        in_use: torch's name of the judge's, such as ``torch.float32``.
    """
    if wanted != "auto":
        return wanted
    return "float32" if in_use.endswith("bfloat16") else "bfloat16"


def backend(judge: JudgeParameters, adapter: BackboneAdapter, **changes: Any) -> PrefixJudge:
    """Return the pipeline's judge, with changes."""
    from unime_kedro.mllm.judge import PrefixJudge

    options = {
        "batch_size": judge.batch_size,
        "share_prefix": judge.share_prefix,
        "max_tokens": judge.max_tokens,
        "vision_cache_gb": judge.vision_cache_gb,
        "workers": judge.image_workers,
    }
    return PrefixJudge(adapter, **(options | changes))


def temperature_of(judge: JudgeParameters) -> float:
    """Return the temperature that the pipeline uses."""
    import numpy as np

    from unime_kedro.mllm.adapters import local_or_hub
    from unime_kedro.mllm.calibration import read_temperature

    found = judge.temperature
    if found == "model":
        found = read_temperature(local_or_hub(judge.model), judge.revision)
    return float(np.float32(found))  # as the table of scores has it
