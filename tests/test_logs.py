"""What is logged, and where to."""

from __future__ import annotations

import logging
import logging.config
from pathlib import Path

import pytest
import yaml

from unime_kedro.errors import DataError
from unime_kedro.logs import ResumeHint, choose_handler

CONFIG = yaml.safe_load((Path(__file__).resolve().parents[1] / "conf/logging.yml").read_text())


def test_a_terminal_gets_colours_a_file_plain_lines() -> None:
    plain, terminal = choose_handler(CONFIG, terminal=False), choose_handler(CONFIG, terminal=True)
    assert plain["handlers"]["console"]["class"] == "logging.StreamHandler"
    assert terminal["handlers"]["console"]["class"] == "kedro.logging.RichHandler"
    assert "terminal_handler" not in plain | terminal
    assert CONFIG["handlers"]["console"]["class"] == "logging.StreamHandler"  # the argument is left as it was


def test_configuration_is_one_that_kedro_accepts() -> None:
    from kedro.framework.project import LOGGING

    LOGGING._validate_logging_config(CONFIG)
    for terminal in (False, True):
        LOGGING._validate_logging_config(choose_handler(CONFIG, terminal))


def test_hint_at_resuming_is_held_back_for_errors_whose_message_says_all(caplog: pytest.LogCaptureFixture) -> None:
    """Kedro's own runner gives it, as in a run."""
    from kedro.io import DataCatalog, MemoryDataset
    from kedro.pipeline import node, pipeline
    from kedro.runner import SequentialRunner

    def run(error: Exception) -> None:
        def fail(raw: int) -> int:
            raise error

        def same(raw: int) -> int:
            return raw

        nodes = [node(same, "raw", "middle", name="first"), node(fail, "middle", "end", name="second")]
        with pytest.raises(type(error)):
            SequentialRunner().run(pipeline(nodes), DataCatalog({"raw": MemoryDataset(1)}))

    logger, hint = logging.getLogger("kedro.runner.sequential_runner"), ResumeHint()
    logger.addFilter(hint)
    try:
        run(DataError("items.parquet: row 3"))
        assert caplog.text.count("resume") == 0
        assert hint.text.startswith("There are 1 nodes that have not run.\nYou can resume")
        hint.text = ""
        run(ZeroDivisionError("a fault of ours"))
        assert "You can resume the pipeline run" in caplog.text
        assert hint.text == ""
    finally:
        logger.removeFilter(hint)


def test_other_warnings_of_the_runner_are_not_held_back() -> None:
    record = logging.LogRecord("kedro.runner", logging.WARNING, "f", 1, "something else", None, None)
    assert ResumeHint().filter(record)


def test_levels() -> None:
    levels = {name: settings["level"] for name, settings in CONFIG["loggers"].items()}
    assert levels["unime_kedro"] == levels["kedro.pipeline.node"] == "INFO"
    assert CONFIG["root"]["level"] == "WARNING"
    assert {logging.getLevelName(levels[name]) for name in ("alembic", "great_expectations", "transformers")} <= {
        30,
        40,
    }
