"""A tracking server that is away, goes away, and comes back: a real one, killed and started again."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_project import Project

from unime_kedro.tracking import sending
from unime_kedro.tracking.metrics import Point
from unime_kedro.tracking.run import TrackedRun, open_run
from unime_kedro.tracking.sending import send_runs
from unime_kedro.tracking.store import TrackingError, client_of
from unime_kedro.tracking.unsent import ARTIFACTS, FILE, open_unsent, unsent_runs


class Server:
    """A tracking server that keeps its runs when it is killed."""

    def __init__(self, folder: Path, store: bytes) -> None:
        self.folder = folder
        (folder / "server.db").write_bytes(store)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        options = [f"--backend-store-uri=sqlite:///{self.folder}/server.db", f"--port={self.port}", "--workers=1"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", *options],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 90
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5)
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), empty_store.read_bytes())
    yield made
    made.kill()


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    """A project whose store of unsent runs needs no migrations any more, which take seconds."""
    (tmp_path / FILE).write_bytes(empty_store.read_bytes())
    return tmp_path


def nobody() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://ann:s3cret@127.0.0.1:{free.getsockname()[1]}"


def fill(run: TrackedRun) -> None:
    run.params({f"p{i}": str(i) for i in range(130)})
    run.tags({f"t{i}": str(i) for i in range(120)})
    run.metrics({"seconds": 1.5, "none": math.nan, "best": math.inf})
    run.history([Point("loss", step, step / 4) for step in range(1100)])
    run.flush()
    run.text("a: ü\n", "config.yml")
    run.data(b"\0\xff", "metrics/x.bin")


def facts(client: Any, run_id: str) -> dict[str, Any]:
    """All that a run is, but for its ids and places."""
    run = client.get_run(run_id)
    histories = {
        key: sorted((m.step, m.timestamp, repr(m.value)) for m in client.get_metric_history(run_id, key))
        for key in run.data.metrics
    }
    names = [one.path for one in client.list_artifacts(run_id)]
    names += [one.path for name in names for one in client.list_artifacts(run_id, name)]
    info = run.info
    tags = {k: v for k, v in run.data.tags.items() if k.split(".")[-1] not in ("sent_from", "sent_to", "continues")}
    return {
        "all": (info.run_name, info.status, info.start_time, info.end_time, run.data.params, histories, sorted(names)),
        "tags": tags,
    }


def quiet(text: str) -> None:
    pass


def waiting(root: Path) -> list[Any]:
    return unsent_runs(open_unsent(root))


# ---------------------------------------------------------------- away from the start


def test_work_goes_on_without_a_server_and_a_person_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    run = open_run(nobody(), root, "e", "mine", {"t": "v"})
    assert time.monotonic() - began < 10
    assert "The work goes on" in caplog.text
    assert "unime runs send" in caplog.text
    assert "s3cret" not in caplog.text
    fill(run)
    run.end("FINISHED")
    (found,) = waiting(root)
    assert (found.info.run_id, found.info.status, found.info.run_name) == (run.run_id, "FINISHED", "mine")
    assert len(found.data.params) == 130
    assert found.data.metrics["loss"] == 1099 / 4
    assert (root / ARTIFACTS / run.run_id / "artifacts/config.yml").read_text(encoding="utf-8") == "a: ü\n"
    assert "runs send" in run.place


def test_a_database_server_nobody_listens_at_is_away(root: Path) -> None:
    uri = nobody().replace("http", "postgresql")
    began = time.monotonic()
    assert open_run(uri, root, "e", "n", {}).uri == f"sqlite:///{root / FILE}"
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_a_server_that_refuses_stops_the_run(root: Path, server: Server) -> None:
    server.start()
    with pytest.raises(TrackingError, match="UNIME_TRACKING=off kedro run"):
        open_run(f"{server.uri}/elsewhere", root, "e", "n", {})
    assert waiting(root) == []


def test_an_unreachable_server_and_a_disk_that_takes_nothing_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(TrackingError, match=f"{FILE} until they are sent"):
        open_run(nobody(), tmp_path, "e", "n", {})


# ---------------------------------------------------------------- sent later


@pytest.mark.slow
def test_sent_runs_are_the_same_and_a_second_time_changes_nothing(root: Path, server: Server) -> None:
    server.start()
    parent = open_run(nobody(), root, "both", "parent", {"k": "v"})
    child = open_run(nobody(), root, "both", "child", {"mlflow.parentRunId": parent.run_id})
    fill(child)
    child.end("FAILED")
    alive = open_run(nobody(), root, "both", "alive", dict(_me()))
    parent.end("FINISHED")

    said: list[str] = []
    assert send_runs(root, server.uri, said.append) == 1  # the one that still runs
    assert [line.split()[1] for line in said] == ["parent", "child"]
    target, local = client_of(server.uri), open_unsent(root)
    (experiment,) = [e for e in target.search_experiments() if e.name == "both"]
    there = {run.info.run_name: run for run in target.search_runs([experiment.experiment_id])}
    assert sorted(there) == ["child", "parent"]
    assert there["child"].data.tags["mlflow.parentRunId"] == there["parent"].info.run_id
    assert there["child"].data.tags["unime.sent_from"] == child.run_id
    for old, new in ((parent.run_id, there["parent"]), (child.run_id, there["child"])):
        here, sent = facts(local, old), facts(target, new.info.run_id)
        assert sent["all"] == here["all"]
        assert sent["tags"] | {"mlflow.parentRunId": ""} == here["tags"] | {"mlflow.parentRunId": ""}
    file = Path(target.download_artifacts(there["child"].info.run_id, "metrics/x.bin", str(root)))
    assert file.read_bytes() == b"\0\xff"

    assert send_runs(root, server.uri, said.append) == 1
    assert len(said) == 2
    for old in (parent, child):  # as if the last step had been cut off
        local.delete_tag(old.run_id, "unime.sent_to")
    before = facts(target, there["child"].info.run_id)
    send_runs(root, server.uri, said.append)
    assert len(target.search_runs([experiment.experiment_id])) == 2
    assert facts(target, there["child"].info.run_id) == before
    alive.end("FINISHED")


def _me() -> dict[str, str]:
    from unime_kedro.tracking.orphans import ProcessIdentity

    return ProcessIdentity.current().tags()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["_send_values", "_send_artifacts"])
def test_sending_that_was_killed_is_completed(
    root: Path, server: Server, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    run = open_run(nobody(), root, step, "n", {})
    fill(run)
    run.end("FINISHED")

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sending, step, killed)
        with pytest.raises(KeyboardInterrupt):
            send_runs(root, server.uri, quiet)
    assert len(waiting(root)) == 1
    assert send_runs(root, server.uri, quiet) == 0
    assert waiting(root) == []
    target = client_of(server.uri)
    experiment = target.get_experiment_by_name(step)
    (there,) = target.search_runs([experiment.experiment_id])
    assert facts(target, there.info.run_id)["all"] == facts(open_unsent(root), run.run_id)["all"]


@pytest.mark.slow
def test_a_child_that_reached_the_server_finds_its_parent_again(root: Path, server: Server) -> None:
    server.start()
    parent = open_run(nobody(), root, "family", "parent", {})
    child = open_run(server.uri, root, "family", "child", {"mlflow.parentRunId": parent.opened_id})
    child.end("FINISHED")
    parent.end("FINISHED")
    send_runs(root, server.uri, quiet)
    target = client_of(server.uri)
    new = target.get_run(child.run_id).data.tags["mlflow.parentRunId"]
    assert target.get_run(new).data.tags["unime.sent_from"] == parent.run_id


# ---------------------------------------------------------------- away in between


@pytest.mark.slow
def test_server_killed_in_mid_run_and_back_later(root: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.start()
    run = open_run(server.uri, root, "between", "n", {"first": "tag"})
    opened = run.run_id
    fill(run)
    (root / "page.html").write_text("<html></html>")
    run.file(root / "page.html", "pages")
    server.kill()
    run.history([Point("loss", 1100, 7.0)])
    began = time.monotonic()
    run.flush()
    run.text("late", "late.txt")
    run.metrics({"late": 2.0})
    run.end("FINISHED")
    assert time.monotonic() - began < 20
    assert "kept in" in caplog.text
    assert not [one for one in caplog.records if one.name.startswith("unime") and one.levelno >= logging.ERROR]

    (kept,) = waiting(root)
    local = open_unsent(root)
    whole = facts(local, kept.info.run_id)
    assert len(whole["all"][5]["loss"]) == 1101
    assert whole["all"][6] == ["config.yml", "late.txt", "metrics", "metrics/x.bin", "pages", "pages/page.html"]
    assert kept.data.tags["first"] == "tag"

    server.start()
    target = client_of(server.uri)
    target.set_tag(opened, "unime.ended", "found dead by run x")  # what the next run does to it
    target.set_terminated(opened, "KILLED")
    assert send_runs(root, server.uri, quiet) == 0
    experiment = target.get_experiment_by_name("between")
    (there,) = target.search_runs([experiment.experiment_id])
    assert there.info.run_id == opened
    sent = facts(target, opened)
    assert sent["all"][4:] == whole["all"][4:]
    assert (sent["all"][1], sent["all"][3]) == ("FINISHED", whole["all"][3])
    assert "unime.ended" not in sent["tags"]


@pytest.mark.slow
def test_server_that_is_back_before_the_end_gets_the_run_at_once(root: Path, server: Server) -> None:
    server.start()
    run = open_run(server.uri, root, "back", "n", {})
    server.kill()
    run.metrics({"a": 1.0})
    run.flush()
    assert run.run_id != run.opened_id
    server.start()
    run.metrics({"b": 2.0})
    run.end("FINISHED")
    assert waiting(root) == []
    found = client_of(server.uri).get_run(run.opened_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"a": 1.0, "b": 2.0})


# ---------------------------------------------------------------- commands


@pytest.mark.slow
def test_commands_run_list_and_send(project: Project, server: Server) -> None:
    server.start()
    (project.root / FILE).write_bytes((project.root / "mlflow.db").read_bytes())
    uri = nobody()
    done = project.kedro("run", "--pipeline=mine", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    assert "The work goes on" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout

    def unime(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from unime_kedro.cli import main; main()", *arguments]
        environment = project.environment(**variables)
        return subprocess.run(
            command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    (listed,) = json.loads(unime("runs", "list", "--json").stdout)
    assert (listed["name"], listed["status"]) == ("mine", "FINISHED")
    refused = unime("runs", "send", MLFLOW_TRACKING_URI=uri)
    assert refused.returncode == 1
    assert "cannot be sent" in refused.stderr
    assert "Traceback" not in refused.stderr
    made = unime("made-by", "data/doubled.json", MLFLOW_TRACKING_URI=uri)
    assert (made.returncode, listed["run_id"] in made.stdout) == (0, True), made.stderr
    sent = unime("runs", "send", f"--to={server.uri}")
    assert sent.returncode == 0, sent.stderr
    assert listed["run_id"] in sent.stdout
    assert unime("runs", "list").stdout == "no run waits to be sent\n"
    found = client_of(server.uri)
    (run,) = found.search_runs([found.get_experiment_by_name("unime-kedro").experiment_id])
    assert run.data.tags["unime.sent_from"] == listed["run_id"]
    assert {one.path for one in found.list_artifacts(run.info.run_id)} >= {"config.yml", "files.json", "plots"}
