"""A file of events that is written, cut, replaced and written again while it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.learning.event_tail import EventTail
from unime_kedro.learning.events import EventLog


def line(step: int, loss: float = 0.5) -> str:
    return json.dumps({"step": step, "loss": loss}) + "\n"


def add(file: Path, text: str) -> None:
    with file.open("a") as stream:
        stream.write(text)


def told(events: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in events]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_events_come_once_and_when_their_line_is_whole(file: Path) -> None:
    tail = EventTail(file)
    assert tail.read() == []  # no file
    add(file, line(1) + line(2)[:9])
    assert told(tail.read()) == [(1, 0.5)]
    assert tail.read() == []
    add(file, line(2)[9:-1])
    assert tail.read() == []  # the object is whole, but not the line: more digits may follow
    add(file, "\n" + line(3))
    assert told(tail.read()) == [(2, 0.5), (3, 0.5)]
    assert tail.read(all_of_it=True) == []


def test_half_a_letter_is_waited_for(file: Path) -> None:
    tail = EventTail(file)
    text = '{"step": 1, "note": "é"}\n'.encode()
    file.write_bytes(text[:-4])
    assert tail.read() == []
    file.write_bytes(text)
    assert tail.read() == [{"step": 1, "note": "é"}]


def test_what_was_there_is_told_when_the_file_is_touched(file: Path) -> None:
    file.write_text("".join(line(step, 1) for step in (1, 2, 3, 4)))
    tail = EventTail(file)
    assert tail.read() == []
    log = EventLog(file, keep_to=2)
    log.write(3, {"loss": 2})
    assert told(tail.read()) == [(1, 1), (2, 1), (3, 2)]  # neither the old 3 nor the old 4


def test_what_was_there_is_told_at_the_end_if_nothing_was_added(file: Path) -> None:
    file.write_text(line(1) + line(2))
    tail = EventTail(file)
    assert tail.read() == []
    assert told(tail.read(all_of_it=True)) == [(1, 0.5), (2, 0.5)]


@pytest.mark.parametrize("how", ["cut", "replaced"])
def test_steps_that_are_done_again_are_told_where_they_differ(file: Path, how: str) -> None:
    tail = EventTail(file)
    add(file, line(1) + line(2) + line(3))
    assert len(tail.read()) == 3
    again = line(1) + line(2, 7) + line(3) + line(4)  # longer than what was read
    if how == "cut":
        file.write_text(again)
    else:
        new = file.with_name("new")
        new.write_text(again)
        os.replace(new, file)
    assert told(tail.read()) == [(2, 7), (4, 0.5)]
    add(file, line(5))
    assert told(tail.read()) == [(5, 0.5)]


def test_a_file_that_was_only_cut_goes_on(file: Path) -> None:
    tail = EventTail(file)
    add(file, line(1) + line(2))
    assert len(tail.read()) == 2
    file.write_text(line(1))
    assert tail.read() == []
    add(file, line(2, 9))
    assert told(tail.read()) == [(2, 9)]


def test_a_value_may_return_to_what_it_was(file: Path) -> None:
    tail = EventTail(file)
    for value in (1, 2, 1):
        file.write_text(line(1, value))
        assert told(tail.read()) == [(1, value)]


def test_lines_that_are_no_events_are_left_out_with_a_warning(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    tail = EventTail(file)
    add(file, '{"step": 1, "lo{"step": 2}\n[1]\n{"loss": 1}\n\n' + line(3))
    assert told(tail.read()) == [(3, 0.5)]
    assert len(caplog.records) == 3
    assert str(file) in caplog.text


@settings(max_examples=60, deadline=None)
@given(
    starts=st.lists(
        st.tuples(st.integers(0, 6), st.lists(st.sampled_from([0.0, 1.0]), max_size=5), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_the_last_word_on_each_step_is_always_known(
    tmp_path_factory: pytest.TempPathFactory, starts: list[tuple[int, list[float], bool]]
) -> None:
    """Starts that go on from a checkpoint and write some steps, while the reader looks now and then."""
    file = tmp_path_factory.mktemp("e") / "events.jsonl"
    tail, known = EventTail(file), {}
    for checkpoint, losses, looks in starts:
        log = EventLog(file, keep_to=checkpoint)
        for step, loss in enumerate(losses, start=checkpoint + 1):
            log.write(step, {"loss": loss})
            if looks:
                known |= dict(told(tail.read()))
    known |= dict(told(tail.read(all_of_it=True)))
    final = {event["step"]: event["loss"] for event in map(json.loads, file.read_text().splitlines())}
    assert {step: known[step] for step in final} == final
