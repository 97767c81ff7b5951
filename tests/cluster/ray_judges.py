"""Judges for workers: made there, by functions that travel with the task."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.judge import PrefixJudge

MODELS = Path(__file__).resolve().parents[2] / "models"


def transformers_judge(dtype: str = "float32") -> PrefixJudge:
    spec = ModelSpec(str(MODELS / "tiny-judge"), dtype=dtype, device="cpu", threads=1)
    return PrefixJudge(load_adapter(spec), batch_size=8)


def maker(seconds: float = 0.0, poison: str = "", dtype: Callable[[], str] = lambda: "float32") -> Callable[[], Any]:
    """Return what makes a judge on a worker.

    Functions that are defined inside others travel as they are; workers do not have this module.

    Args:
        seconds: What each query takes longer.
        poison: Candidates with these words kill the process that judges them.
        dtype: Asked on the worker.
    """
    folder = str(MODELS / "tiny-judge")

    def make() -> Any:
        import os

        judge = PrefixJudge(load_adapter(ModelSpec(folder, dtype=dtype(), device="cpu", threads=1)), batch_size=8)
        judge_one = judge.judge

        def slow_and_deadly(query: Any, candidates: Any) -> Any:
            if poison and any(poison in candidate.text for candidate in candidates):
                os.kill(os.getpid(), 9)
            time.sleep(seconds)
            return judge_one(query, candidates)

        judge.judge = slow_and_deadly  # type: ignore[method-assign]
        return judge

    return make
