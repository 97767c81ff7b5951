"""Ask before spending: what a run says in its first lines."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mmeb_tree import write_tree

from unime_kedro.mining.store import JudgeStore
from unime_kedro.mllm.cost import KNOWN, cost_of_shape
from unime_kedro.planning.before_run import _cost, judging_announcement
from unime_kedro.planning.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
HUB = "Qwen/Qwen2.5-VL-7B-Instruct"
SMALL = {"device": "cpu", "model": "Qwen/Qwen2-VL-2B-Instruct"}


@pytest.fixture(autouse=True)
def _at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("UNIME_DATA_ROOT", str(tmp_path))


def announcement(env: str | None = "paper", **params: Any) -> str | None:
    return judging_announcement(read_settings(env, ("judge",), params))


def test_the_papers_judging_is_announced() -> None:
    text = announcement(judge={"device": "cpu"})
    assert text is not None
    assert text.startswith(f"About 33,762,000 pairs are to be judged by {HUB}: ")
    assert "unime plan --env=paper --pipeline=judge" in text
    assert re.search(r": [\d.]+ [kM]? ?\([^)]* to [^)]*\) hours of one CPU with \d+ cores", text)


def test_the_embedded_judge_is_not_nor_one_that_nothing_is_known_of() -> None:
    assert announcement(None) is None
    assert announcement("smoke") is None
    assert announcement(judge={"model": "someone/else"}) is None


def test_few_pairs_are_not_worth_a_line(tmp_path: Path) -> None:
    write_tree(tmp_path)
    assert announcement(pool={"k": 1}, judge={**SMALL, "max_pixels": 12544}) is None
    # 36 queries with 50 candidates each, read from the raw rows
    text = announcement(judge={"device": "cpu"})
    assert text is not None
    assert text.startswith("About 1,836 pairs")


def test_what_the_store_has_is_taken_off(tmp_path: Path) -> None:
    rows = pl.DataFrame({"query_id": range(100_000)})
    (tmp_path / "02_intermediate").mkdir()
    rows.write_parquet(tmp_path / "02_intermediate/queries.parquet")
    for model, pairs in ((f"{HUB}@abc", 70), ("another@abc", 500)):
        scores = {"query_key": "q", "candidate_key": "c", "yes_logit": 0.0, "no_logit": 0.0, "error": ""}
        with JudgeStore(tmp_path / "03_primary/judge_store", {"model": model}) as store:
            store.add(pl.DataFrame([scores] * pairs))
    text = announcement(judge={"device": "cpu"})
    assert text is not None
    assert text.startswith(f"About {100_000 * 51 - 70:,} pairs")


def test_a_folders_cost_is_that_of_its_config(tmp_path: Path) -> None:
    """The shape from config.json, the size of the rest from the bytes of the weights."""
    text = {
        "num_hidden_layers": 28,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
    }
    (tmp_path / "config.json").write_text(json.dumps({"text_config": text, "dtype": "bfloat16"}))
    known = cost_of_shape(KNOWN["Qwen/Qwen2-VL-2B-Instruct"])
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2 * known.parameters)
    found = _cost(str(tmp_path))
    assert found is not None
    assert (found.language, found.vision, found.width) == (known.language, known.vision, known.width)


def test_it_loads_no_model(tmp_path: Path) -> None:
    """In a process of its own: torch is not even imported for a small job."""
    import subprocess

    code = (
        "import sys\nfrom unime_kedro.planning.settings import read_settings\n"
        "from unime_kedro.planning.before_run import judging_announcement\n"
        "assert judging_announcement(read_settings(None, ('judge',))) is None\n"
        "print('transformers' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_kedro_run_says_it_first(tmp_path: Path) -> None:
    """The real command; it stops at once, since nothing was ingested."""
    import subprocess

    done = subprocess.run(
        [str(Path(sys.executable).with_name("kedro")), "run", "--env=paper", "--pipeline=judge"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "UNIME_TRACKING": "off"},
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 1
    assert "About 33,762,000 pairs are to be judged" in shown
    assert shown.index("About 33,762,000") < shown.index("queries.parquet does not exist")
