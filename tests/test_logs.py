"""What is logged, and where to."""

from __future__ import annotations

import logging
import logging.config
from pathlib import Path

import yaml

from unime_kedro.logs import choose_handler

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


def test_levels() -> None:
    levels = {name: settings["level"] for name, settings in CONFIG["loggers"].items()}
    assert levels["unime_kedro"] == levels["kedro.pipeline.node"] == "INFO"
    assert CONFIG["root"]["level"] == "WARNING"
    assert {logging.getLevelName(levels[name]) for name in ("alembic", "great_expectations", "transformers")} <= {
        30,
        40,
    }
