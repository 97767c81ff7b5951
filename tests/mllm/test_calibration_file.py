"""The calibration beside a judge's weights: written whole, read back, refused when damaged, no part of the model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from unime_kedro.errors import ModelError
from unime_kedro.mllm.calibration import CALIBRATION_FILE, read_temperature, write_calibration
from unime_kedro.mllm.fingerprint import folder_fingerprint


def test_what_is_written_is_read_back(tmp_path):
    write_calibration(tmp_path, 1.625, pairs=400, data="calibration", ece_before=0.2)
    write_calibration(tmp_path, np.float64(2.5), pairs=500, data="calibration", ece_before=0.1)
    assert read_temperature(tmp_path) == 2.5
    assert read_temperature(str(tmp_path)) == 2.5
    assert [file.name for file in tmp_path.iterdir()] == ["judge_calibration.json"]
    text = (tmp_path / "judge_calibration.json").read_text()
    assert json.loads(text) == {"data": "calibration", "ece_before": 0.1, "pairs": 500, "temperature": 2.5}
    assert text.index('"data"') < text.index('"ece_before"') < text.index('"pairs"') < text.index('"temperature"')


def test_no_calibration_means_one(tmp_path):
    assert read_temperature(tmp_path) == 1.0
    assert read_temperature("Qwen/Qwen2.5-VL-7B-Instruct", "main") == 1.0


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, True, "2"])
def test_only_a_positive_number_is_written(tmp_path, temperature):
    with pytest.raises(ValueError, match="finite number above 0"):
        write_calibration(tmp_path, temperature)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("fact", "error"), [(math.nan, ValueError), (Path("x"), TypeError)])
def test_a_fact_that_json_cannot_hold_leaves_the_old_file(tmp_path, fact, error):
    write_calibration(tmp_path, 2.0)
    with pytest.raises(error):
        write_calibration(tmp_path, 3.0, fact=fact)
    assert read_temperature(tmp_path) == 2.0
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"temperature": 1', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "cannot be read"),
        (b"[1.5]", "no key 'temperature'"),
        (b'{"T": 1.5}', "no key 'temperature'"),
        (b'{"temperature": 0}', "temperature 0, expected a finite number above 0"),
        (b'{"temperature": -2.5}', "temperature -2.5, expected"),
        (b'{"temperature": "1.5"}', 'temperature "1.5", expected'),
        (b'{"temperature": null}', "temperature null, expected"),
        (b'{"temperature": true}', "temperature true, expected"),
        (b'{"temperature": NaN}', "temperature NaN, expected"),
        (b'{"temperature": 1e999}', "temperature Infinity, expected"),
    ],
)
def test_a_damaged_calibration_is_an_error_that_names_file_and_remedy(tmp_path, text, message):
    (tmp_path / CALIBRATION_FILE).write_bytes(text)
    with pytest.raises(ModelError) as caught:
        read_temperature(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / CALIBRATION_FILE) in str(caught.value)
    assert "judge.temperature" in str(caught.value)


def test_the_calibration_is_no_part_of_the_fingerprint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = folder_fingerprint(tmp_path)
    write_calibration(tmp_path, 2.0)
    assert folder_fingerprint(tmp_path) == before
    (tmp_path / "other_calibration.json").write_text("{}")
    assert folder_fingerprint(tmp_path) != before
