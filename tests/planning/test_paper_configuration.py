"""conf/paper says what the paper and its release say, and how to use it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from unime_kedro.ablations.project import Project
from unime_kedro.planning.options import read_run_file
from unime_kedro.planning.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "conf/paper"
FILES = sorted([*PAPER.glob("parameters/*.yml"), *PAPER.glob("variants/*.yml"), PAPER / "ablations.yml"])

#: the paper's tables 7 and 8, its text, and the release's scripts
WANTED = {
    "pool.model": "TIGER-Lab/VLM2Vec-Qwen2VL-7B",
    "pool.k": 50,
    "pool.max_similarity": None,
    "judge.model": "Qwen/Qwen2.5-VL-7B-Instruct",
    "select.negatives": 10,
    "select.step": 5,
    "select.filter.rule": "absolute",
    "select.filter.margin": 0.01,
    "train.model": "Qwen/Qwen2-VL-2B-Instruct",
    "train.learning_rate": 1e-4,
    "train.batch": 1024,
    "train.steps": 2000,
    "train.warmup_steps": 200,
    "train.schedule": "linear",
    "train.max_tokens": 4096,
    "train.max_pixels": 672 * 672,
    "train.negatives": 8,
    "train.seed": 42,
    "train.tuning": "lora",
    "train.lora.rank": 16,
    "train.lora.alpha": 64,
    "train.lora.dropout": 0.1,
    "train.loss.kind": "soft",
    "train.loss.student_temperature": 0.02,
    "train.loss.judge_temperature": 0.02,
    "train.loss.probability_floor": 1e-8,
    "train.distributed.processes": 8,
    "rerank.model": "Qwen/Qwen2.5-VL-7B-Instruct",
    "rerank.learning_rate": 2e-5,
    "rerank.schedule": "cosine",
    "rerank.batch": 64,
    "rerank.max_tokens": 4096,
    "rerank.max_pixels": 336 * 336,
    "rerank.tuning": "lora",
    "rerank.lora.rank": 128,
    "rerank.lora.alpha": 256,
    "rerank.negatives": 5,
    "rerank.listwise_weight": 1.0,
    "rerank.arguments": {"adam_beta2": 0.999},  # not the tiny model's .98
    "evaluate.reranking.top": 10,
    "evaluate.reranking.method": "listwise",
}


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("UNIME_DATA_ROOT", raising=False)


def value(raw: dict[str, Any], dotted: str) -> Any:
    for part in dotted.split("."):
        raw = raw[part]
    return raw


def test_values_are_those_of_the_paper() -> None:
    raw = read_settings("paper").raw
    assert {key: value(raw, key) for key in WANTED} == WANTED


def test_an_epoch_of_the_reranker_and_its_warm_up() -> None:
    rerank = read_settings("paper").section("rerank")
    assert rerank.steps == -(-662_000 // 64)
    assert rerank.warmup_steps == round(0.03 * rerank.steps)


def test_variants_are_the_papers_other_backbones() -> None:
    found = {}
    for name in ("qwen2-vl-7b", "llava-onevision-7b"):
        run = read_run_file(PAPER / f"variants/{name}.yml")
        train = read_settings(run["env"], (run["pipelines"],), run["params"]).section("train")
        found[name] = (train.model, train.learning_rate, train.max_pixels, train.batch, train.lora.rank)
    assert found == {
        "qwen2-vl-7b": ("Qwen/Qwen2-VL-7B-Instruct", 1e-4, 672 * 672, 1024, 16),
        "llava-onevision-7b": ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 2e-5, 336 * 336, 1024, 16),
    }


def test_table_1_is_a_group() -> None:
    """Against the text of the method, section 6."""
    group = Project("paper").group("backbone")
    assert group.paper is not None
    assert group.paper.figures == {
        "qwen2_vl_2b": [62.1, 56.3, 68.0, 72.7, 67.4, 58.9, 63.6],
        "qwen2_vl_7b": [64.0, 60.1, 73.1, 82.8, 72.0, 63.0, 68.0],
        "llava_onevision_7b": [65.3, 67.6, 72.9, 90.2, 74.8, 66.7, 71.2],
    }
    assert group.arms["llava_onevision_7b"]["train.learning_rate"] == 2e-5
    assert [Project("paper").group(name).tune for name in ("components", "negatives", "temperature", "judge")] == (
        [None] * 4
    ), "the learning rates of the tiny model have no place here"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_open_with_the_command_and_an_override(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    heading = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    commands = re.findall(r"(?:kedro run|unime [a-z]+)[^\n#]*", heading)
    assert commands, "the exact command"
    assert re.search(r"One override|Data elsewhere", heading)
    assert re.search(r"Not run by the authors of this project", heading)
    for command in commands:
        for path in re.findall(r"conf/[\w/.-]+\.yml", command):
            assert (ROOT / path).is_file(), path
        for pipeline in re.findall(r"--pipeline=(\w+)", command):
            assert pipeline in {"ingest", "pool", "judge", "select", "mine", "train", "rerank", "evaluate"}
        for params in re.findall(r"--params=(\S+)", command):
            raw = read_settings("paper").raw
            for one in params.split(","):
                key = one.partition("=")[0]
                assert key.split(".")[0] in raw, f"{file.name}: --params={one}"


@pytest.mark.parametrize("file", sorted(PAPER.glob("parameters/*.yml")), ids=lambda file: file.name)
def test_every_value_of_a_model_stage_says_where_it_is_from(file: Path) -> None:
    """A file has one section, called like itself; nothing unknown is invented: such a key says `not given`."""
    text = file.read_text(encoding="utf-8")
    assert list(yaml.safe_load(text)) == [file.stem]
    for key in ("weight_decay", "max_gradient_norm", "revision"):
        for line in re.findall(rf"^  {key}:.*$", text, flags=re.MULTILINE):
            assert "not given" in line, f"{file.name}: {line.strip()}"
