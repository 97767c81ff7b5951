"""The embedded tiny models behind the real engine."""

from __future__ import annotations

from pathlib import Path

from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.vllm_engine import EngineOptions
from unime_kedro.mllm.vllm_judge import VllmJudge

MODELS = Path(__file__).resolve().parents[2] / "models"
OPTIONS = EngineOptions(kv_cache_gb=1, enforce_eager=True)
MAX_TOKENS = 512


def spec(model: str = "tiny-judge") -> ModelSpec:
    return ModelSpec(str(MODELS / model), dtype="float32", device="cpu")


def new_judge(**options) -> VllmJudge:
    return VllmJudge(spec(), OPTIONS, **{"max_tokens": MAX_TOKENS, **options})
