"""Ask before spending: the first lines of a run that would judge for hours say so.

They take milliseconds and load no model, so every run can afford them; lengths and speeds are assumed. `unime plan`
looks closer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from unime_kedro.errors import ModelError
from unime_kedro.mllm.cost import KNOWN, ModelCost, cost_of_shape
from unime_kedro.own_data import is_embedded_model, is_own_data
from unime_kedro.paths import resolve
from unime_kedro.planning.corpus import PUBLISHED_PAIRS
from unime_kedro.planning.devices import UTILISATION, cpu, gpu_here
from unime_kedro.planning.interval import Interval
from unime_kedro.planning.lengths import assumed_lengths
from unime_kedro.planning.strategy import strategy_share
from unime_kedro.planning.text import span
from unime_kedro.planning.work import judging_work, spanning

if TYPE_CHECKING:
    from unime_kedro.planning.settings import Settings

#: runs that are estimated to judge longer say so
HOURS = 1.0
#: fewer operations take less than an hour on any machine; torch need not be asked what this one has
_FEW = 5e13


def judging_announcement(settings: Settings) -> str | None:
    """Return what a run should say before it judges, None if it will not take long or nothing is known.

    Args:
        settings: The run.
    """
    judge = settings.section("judge")
    if is_embedded_model(judge.model):
        return None  # minutes, whatever the machine
    if (cost := _cost(judge.model)) is None:
        return None
    queries = _queries(settings)
    width = settings.section("pool").k + 1
    asked, _ = strategy_share(judge.strategy, width - 1, settings.section("select").negatives)
    pairs = max(0, round(queries * width * asked.middle) - _scores(settings.place("judge_store"), judge))
    found = [
        judging_work(
            lengths,
            cost,
            Interval.exactly(pairs),
            Interval.exactly(queries),
            judge.model,
            share_prefix=judge.share_prefix,
        )
        for lengths in assumed_lengths(_largest_picture(judge), width, judged=True)
    ]
    operations = spanning(found).operations
    if operations is None or operations.middle < _FEW:
        return None
    device = _device(judge.device)
    hours = operations.over(UTILISATION["judge"] * device.peak) * (1 / 3600)
    if hours.middle <= HOURS:
        return None
    env = f" --env={settings.env}" if settings.env else ""
    return (
        f"About {pairs:,} pairs are to be judged by {judge.model}: {span(hours)} hours of one {device.title}, by rough "
        f"assumptions. Ctrl-C stops; what is judged is kept. Closer: unime plan{env} --pipeline=judge, with "
        "--measure=100 on the machine that is to judge."
    )


def _cost(model: str) -> ModelCost | None:
    """Return a model's cost without loading anything: declared for known hub ids, by its files for a folder."""
    if model in KNOWN:
        return cost_of_shape(KNOWN[model])
    folder = resolve(model)
    try:
        whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text: dict[str, Any] = whole.get("text_config", whole)
        layers, hidden, inner = (
            int(text[f"{name}"]) for name in ("num_hidden_layers", "hidden_size", "intermediate_size")
        )
        heads, key_heads = int(text["num_attention_heads"]), int(text["num_key_value_heads"])
        vocabulary = int(text["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    width = int(text.get("head_dim") or hidden // heads)
    language = layers * hidden * (2 * heads * width + 2 * key_heads * width + 3 * inner)
    bytes_each = 4 if "float32" in str(text.get("dtype") or whole.get("dtype") or whole.get("torch_dtype")) else 2
    parameters = sum(file.stat().st_size for file in folder.glob("*.safetensors")) // bytes_each
    vision = max(0, parameters - language - vocabulary * hidden)
    return ModelCost(parameters, language, vision, layers, heads * width, hidden, 0, 0, 4)


def _largest_picture(judge: Any) -> int | None:
    """Return the largest area of a picture in pixels: the parameter's, else the model folder's, None if unknown."""
    if judge.max_pixels is not None:
        return int(judge.max_pixels)
    try:
        values = json.loads((resolve(judge.model) / "preprocessor_config.json").read_text(encoding="utf-8"))
        return int(values.get("max_pixels") or values["size"]["longest_edge"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _queries(settings: Settings) -> int:
    """Return how many queries there are: in the table, else raw rows, else as published or declared."""
    table, root = settings.place("queries"), resolve(settings.raw["ingest"]["root"])
    files = [table] if table.is_file() else sorted(root.glob(f"*/{settings.raw['ingest']['split']}-*.parquet"))
    try:
        if files:
            return sum(_rows(file) for file in files)
    except (OSError, pl.exceptions.PolarsError):  # a damaged file is for the stage that reads it to report
        pass
    if is_own_data(settings.raw):
        return PUBLISHED_PAIRS
    return int(sum(settings.raw["demo"]["train_pairs"].values()))


def _rows(*files: Path) -> int:
    """Return how many rows parquet files have, by their metadata."""
    return int(pl.scan_parquet(list(files), glob=False).select(pl.len()).collect().item()) if files else 0


def _scores(store: Path, judge: Any) -> int:
    """Return how many rows the store has of this judge, whatever the prompt."""
    found = 0
    for card in sorted(store.glob("*/judge.json")):
        shards = sorted(card.parent.glob("shard-*.parquet"))
        if shards and _is_of(card, judge):
            try:
                found += _rows(*shards)
            except (OSError, pl.exceptions.PolarsError):
                continue
    return found


def _is_of(card: Path, judge: Any) -> bool:
    from unime_kedro.mllm.adapters import fingerprint_of

    try:
        name = str(json.loads(card.read_text(encoding="utf-8")).get("model"))
        return name.startswith(f"{judge.model}@") or (
            resolve(judge.model).is_dir() and name == fingerprint_of(judge.model, judge.revision)
        )
    except (OSError, ValueError, ModelError):
        return False


def _device(wanted: str) -> Any:
    from unime_kedro.learning.hardware import gpu_name
    from unime_kedro.planning.devices import find_gpu

    title = None if wanted == "cpu" else gpu_name()
    return cpu() if title is None else gpu_here(title) or find_gpu("a800")
