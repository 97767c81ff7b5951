"""What an audit needs of a run: its files, packages and changes of the code, and which run a stage of DVC had."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_project import Project

from unime_kedro.errors import DataError
from unime_kedro.tracking import surroundings
from unime_kedro.tracking.files import FileRecord
from unime_kedro.tracking.made_by import made_by
from unime_kedro.tracking.provenance import config_hash, git_tags
from unime_kedro.tracking.stage_runs import Maker, makers, record_stage


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def artifact(run: Any, name: str) -> bytes:
    return (Path(run.info.artifact_uri.removeprefix("file://")) / name).read_bytes()


def committed(project: Project) -> Project:
    project.write(".gitignore", "data/\nmlflow.db*\nmlartifacts/\n__pycache__/\n")
    git(project.root, "init", "-q")
    git(project.root, "add", "-A")
    git(project.root, "commit", "-q", "-m", "one")
    return project


def test_a_run_in_changed_code_leaves_files_packages_and_a_patch(project: Project) -> None:
    committed(project)
    (project.root / "src/toy/__init__.py").write_text("WORD = 'changed'\n")
    project.write("notes/ü new.txt", "a new file\n")
    (project.root / "notes/large.bin").write_bytes(b"\0" * (surroundings.MAX_NEW_FILE + 1))
    project.write("dvc.lock", "what DVC writes\n")
    status = git(project.root, "status", "--porcelain")
    done = project.kedro("run", "--pipeline=mine", DVC_STAGE="mine")
    assert done.returncode == 0, done.stderr
    (run,) = project.runs()
    tags = run.data.tags
    assert tags["data.root"] == "data"

    files = json.loads(artifact(run, "files.json"))
    assert [(one["side"], one["dataset"], one["path"]) for one in files] == [
        ("input", "raw", "<data root>/raw.json"),
        ("output", "doubled", "<data root>/doubled.json"),
        ("output", "first_metrics", "<data root>/08_reporting/first_metrics.json"),
        ("output", "gallery", "<data root>/08_reporting/gallery.html"),
        ("output", "negatives", "<data root>/negatives.parquet"),
        ("output", "select_metrics", "<data root>/08_reporting/select_metrics.json"),
    ]
    for one in files:
        content = (project.root / one["path"].replace("<data root>", "data")).read_bytes()
        found = {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()}
        assert {kind: one[kind] for kind in found} == found
        assert {kind: tags[f"{one['side']}.{one['dataset']}.{kind}"] for kind in found} == found
        assert one["bytes"] == len(content)

    packages = artifact(run, "environment.txt")
    assert tags["environment.hash"] == hashlib.sha256(packages).hexdigest()
    assert f"mlflow=={metadata.version('mlflow')}" in packages.decode().splitlines()
    names = [line.split("==")[0] for line in packages.decode().splitlines()]
    assert names == sorted(set(names))
    assert config_hash(yaml.safe_load(artifact(run, "config.yml"))) == tags["config.hash"]

    patch = artifact(run, "git.diff")
    assert tags["git.diff.sha256"] == hashlib.sha256(patch).hexdigest()
    assert tags["git.left_out"] == "notes/large.bin"
    git(
        project.root,
        "worktree",
        "add",
        "-q",
        "--detach",
        str(project.root / "data/again"),
        tags["mlflow.source.git.commit"],
    )
    again = project.root / "data/again"
    (project.root / "data/patch").write_bytes(patch)
    git(again, "apply", str(project.root / "data/patch"))
    assert (again / "src/toy/__init__.py").read_text() == "WORD = 'changed'\n"
    assert (again / "notes/ü new.txt").read_text() == "a new file\n"
    assert not (again / "dvc.lock").exists()
    left = {"?? runs.json", "?? .runs.lock"}
    assert set(git(project.root, "status", "--porcelain").splitlines()) == set(status.splitlines()) | left
    assert git(project.root, "ls-files", "notes") == ""  # the repository's own index is as it was

    outs = json.loads((project.root / "runs.json").read_text())["stages"]["mine"]
    assert outs == {
        "run_id": run.info.run_id,
        "outs": {one["path"].replace("<data root>", "data"): one["md5"] for one in files if one["side"] == "output"},
    }


def test_a_clean_tree_has_no_patch_and_results_of_dvc_are_no_change(project: Project) -> None:
    committed(project)
    for name in surroundings.RESULTS:
        project.write(name, "{}\n")
    assert git_tags(project.root)["git.dirty"] == "false"
    assert surroundings.changes_of(project.root) == ("", [])
    git(project.root, "add", "-A")
    assert surroundings.changes_of(project.root) == ("", [])
    project.write("dvc.lock.txt", "no result\n")
    assert git_tags(project.root)["git.dirty"] == "true"


def test_without_a_repository_or_a_commit_there_is_no_patch(tmp_path: Path) -> None:
    assert surroundings.changes_of(tmp_path) == ("", [])
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("a")
    assert surroundings.changes_of(tmp_path) == ("", ["a"])


def test_a_failed_and_a_killed_run_leave_what_they_read_and_wrote(project: Project) -> None:
    for how, process in (("refuse", None), ("hang", project.start("run", "--pipeline=hang"))):
        if process is None:
            project.kedro("run", f"--pipeline={how}")
        else:
            process.terminate()
            process.communicate(timeout=60)
    killed, failed = sorted(project.runs(), key=lambda run: run.info.status, reverse=True)
    assert (killed.info.status, failed.info.status) == ("KILLED", "FAILED")
    files = json.loads(artifact(failed, "files.json"))
    assert [one["dataset"] for one in files] == ["raw", "doubled", "first_metrics"]
    assert [one["dataset"] for one in json.loads(artifact(killed, "files.json"))][:1] == ["raw"]
    assert not (project.root / "runs.json").exists()  # no stage of DVC


def record(path: str, md5: str | None) -> FileRecord:
    return FileRecord("output", "x", path, "s", md5, 1)


def test_makers_of_stages_replace_only_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    monkeypatch.delenv("DVC_STAGE", raising=False)
    record_stage(tmp_path, data, "r0", [record("<data root>/a", "m0")])
    assert list(makers(tmp_path)) == []
    for stage, run, md5 in (("pool", "r1", "m1"), ("judge", "r2", "m2"), ("pool", "r3", "m3")):
        monkeypatch.setenv("DVC_STAGE", stage)
        outs = [record(f"<data root>/{stage}", md5), record("/elsewhere/b", "m"), record("<data root>/large", None)]
        record_stage(tmp_path, data, run, outs)
    assert list(makers(tmp_path)) == [
        Maker("data/judge", "m2", "judge", "r2"), Maker("data/pool", "m3", "pool", "r3"),
    ]  # fmt: skip
    (tmp_path / "runs.json").write_text('{"stages"')
    with pytest.raises(DataError, match=r"runs\.json cannot be read"):
        list(makers(tmp_path))


def test_stages_side_by_side_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom unime_kedro.tracking.files import FileRecord\n"
        "from unime_kedro.tracking.stage_runs import record_stage\n"
        "for n in range(10):\n    os.environ['DVC_STAGE'] = f'{sys.argv[1]}-{n}'\n"
        "    out = FileRecord('output', 'x', f'<data root>/{sys.argv[1]}-{n}', 's', 'm', 1)\n"
        "    record_stage(Path.cwd(), Path.cwd() / 'data', 'r', [out])\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path) for name in "ab"]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert len(list(makers(tmp_path))) == 20


def test_makers_are_found_by_the_bytes_wherever_the_file_lies(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.kedro("run", "--pipeline=mine").returncode == 0
    (run,) = project.runs()
    copy = tmp_path / "copy"
    copy.write_bytes((project.root / "data/doubled.json").read_bytes())
    client = project.client()
    found = made_by(copy, project.root, [client])
    assert [(one["run_id"], one["command"]) for one in found.runs] == [
        (run.info.run_id, "kedro run --pipeline=mine"),
    ]
    assert found.stage == ""
    raw = project.root / "data/raw.json"  # read by the run, made by nobody
    assert made_by(raw, project.root, [client]).runs == []
    monkeypatch.setenv("DVC_STAGE", "demo")
    record_stage(project.root, project.root / "data", "of another store", [record("<data root>/raw.json", _md5(raw))])
    named = made_by(raw, project.root, [])
    assert (named.stage, named.runs) == ("demo", [{"run_id": "of another store"}])
    with pytest.raises(DataError, match="does not exist"):
        made_by(tmp_path / "missing", project.root, [client])


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()
