"""Hashes, commits and configuration: the same on every machine, and what other tools would say."""

from __future__ import annotations

import hashlib
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from unime_kedro.tracking.provenance import (
    code_commit,
    code_tags,
    config_hash,
    git_tags,
    resolved_config,
    seed_tags,
    without_password,
)


class Options(BaseModel):
    folder: str
    seed: int = 1


def configuration(root: Path, data_root: Path, **options: Any) -> dict[str, Any]:
    """Return the configuration as two copies of one project would resolve it."""
    parameters = {"options": Options(folder="models/judge", **options), "corpus": f"{data_root}/01_raw", "n": 3}
    catalog = {"pool": {"filepath": f"{data_root}/pool.parquet"}, "doc": {"filepath": f"{root}/docs/x.md"}}
    return resolved_config(parameters, catalog, root, data_root)


def test_configuration_does_not_depend_on_where_project_and_data_lie() -> None:
    one = configuration(Path("/home/ann/unime"), Path("/home/ann/unime/data"))
    two = configuration(Path("/tmp/x"), Path("/mnt/big disk"))
    assert one == two
    assert one["catalog"] == {"pool": {"filepath": "<data root>/pool.parquet"}, "doc": {"filepath": "docs/x.md"}}
    assert one["parameters"]["corpus"] == "<data root>/01_raw"
    assert config_hash(one) == config_hash(two)


def test_relative_data_root_is_recognised_in_parameters() -> None:
    root = Path("/p")
    config = resolved_config({"a": "data/01_raw", "b": "database", "c": "data"}, {}, root, root / "data")
    assert config["parameters"] == {"a": "<data root>/01_raw", "b": "database", "c": "<data root>"}


def test_hash_changes_with_any_value_and_not_with_the_order_of_keys() -> None:
    assert config_hash({"a": 1, "b": {"c": 2, "d": 3}}) == config_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 1.5})
    assert config_hash({}) == hashlib.sha256(b"{}").hexdigest()
    one, two = (configuration(Path("/p"), Path("/p/data"), seed=seed) for seed in (1, 2))
    assert config_hash(one) != config_hash(two)


def test_seeds_of_all_blocks() -> None:
    parameters = {"demo": {"seed": 7, "k": 1}, "pretrain": {"judge": {"seed": 3}}, "seed": 0, "x": {"seeds": 9}}
    assert seed_tags(parameters) == {"seed.demo": "7", "seed.pretrain.judge": "3", "seed": "0"}


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://ann:s3cret@host:5000/x", "https://ann:***@host:5000/x"),
        ("postgresql://ann:a:b@host/db", "postgresql://ann:***@host/db"),
        ("https://host:5000/x", "https://host:5000/x"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_passwords_are_not_shown(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_of_the_code_is_not_that_of_documents_and_results(tmp_path: Path) -> None:
    def commit(name: str) -> str:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        _git(tmp_path, "add", name)
        _git(tmp_path, "commit", "-q", "-m", name)
        return _git(tmp_path, "rev-parse", "HEAD")

    assert code_tags(tmp_path) == {}
    _git(tmp_path, "init", "-q")
    assert code_tags(tmp_path) == {}
    commit("README.md")
    assert code_tags(tmp_path) == {}
    for name in ("src/a.py", "conf/a.yml", "models/a", "pyproject.toml", "constraints.txt"):
        code = commit(name)
        latest = commit(f"{name.replace('/', '-')}.md")
        assert code_tags(tmp_path) == {"git.code": code}
    assert code_commit(code_tags(tmp_path) | git_tags(tmp_path)) == code
    assert code_commit(git_tags(tmp_path)) == latest  # of runs that were recorded without it
    assert code_commit({}) == ""


def test_git_tags(tmp_path: Path) -> None:
    git = partial(_git, tmp_path)

    assert git_tags(tmp_path) == {}
    git("init", "-q")
    assert git_tags(tmp_path) == {"git.dirty": "false"}  # no commit yet
    (tmp_path / "a").write_text("a")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    assert git_tags(tmp_path) == {"git.dirty": "false", "mlflow.source.git.commit": git("rev-parse", "HEAD")}
    (tmp_path / "b").write_text("b")
    assert git_tags(tmp_path)["git.dirty"] == "true"
