"""The file of figures survives being cut off, and a training that goes on drops what it will do again."""

from __future__ import annotations

from unime_kedro.learning.events import EventLog, history_of, read_events


def test_events_are_read_as_they_were_written(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", keep_to=0)
    log.write(1, {"loss": 0.5})
    log.write(2, {"loss": 0.25, "note": "x"})
    assert read_events(tmp_path / "events.jsonl") == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "note": "x"}]


def test_a_line_that_was_cut_off_has_no_event_and_the_next_start_removes_it(tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    assert read_events(file) == [{"step": 1, "loss": 1.0}]
    EventLog(file, keep_to=5).write(2, {"loss": 3.0})
    assert read_events(file) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 3.0}]


def test_going_on_from_a_checkpoint_drops_later_events(tmp_path):
    file = tmp_path / "events.jsonl"
    log = EventLog(file, keep_to=0)
    for step in range(1, 6):
        log.write(step, {"loss": float(step)})
    EventLog(file, keep_to=3)
    assert [event["step"] for event in read_events(file)] == [1, 2, 3]


def test_no_file_has_no_events(tmp_path):
    assert read_events(tmp_path / "none") == []


def test_a_history_has_one_row_per_step_and_the_last_word_counts():
    events = [{"step": 2, "loss": 1.0}, {"step": 0, "p": 0.1}, {"step": 2, "p": 0.2}, {"step": 2, "loss": 0.5}]
    assert history_of(events) == [{"step": 0, "p": 0.1}, {"step": 2, "loss": 0.5, "p": 0.2}]
