"""The temperature that a judge's scores were calibrated with, kept in the judge's own folder.

A temperature belongs to the weights it was fitted for: beside them it is copied, moved and deleted with them, and every
run that uses the model finds it.
"""

from __future__ import annotations

import json
import sys
from numbers import Real
from pathlib import Path
from typing import Any

from unime_kedro.atomic import atomic_write
from unime_kedro.errors import ModelError
from unime_kedro.paths import resolve

CALIBRATION_FILE = "judge_calibration.json"


def write_calibration(folder: Path, temperature: float, **facts: Any) -> None:
    """Write the calibration of the judge in a model folder, in place of an older one.

    Args:
        folder: The model's folder.
        temperature: What the difference of the logits of Yes and No is divided by.
        **facts: How the temperature was found, for readers: number of pairs, data, error before and after. Anything
            that JSON can hold.

    Raises:
        ValueError: If the temperature is not a finite number above 0, or a fact is NaN or infinite.
        TypeError: If a fact is nothing that JSON can hold.
    """
    if not _usable(temperature):
        raise ValueError(f"temperature must be a finite number above 0, is {temperature!r}")
    card = {**facts, "temperature": float(temperature)}
    text = json.dumps(card, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with atomic_write(folder / CALIBRATION_FILE) as path:
        path.write_text(text + "\n", encoding="utf-8")


def read_temperature(source: Path | str, revision: str | None = None) -> float:
    """Return the temperature that a judge was calibrated with.

    Args:
        source: The model's folder (a relative one starts at the project root) or hub id.
        revision: Hub revision. Without effect so far: models of the hub carry no calibration of ours, and none is
            looked for, neither on the network nor in the local cache.

    Returns:
        1.0, which changes nothing, when the folder holds no calibration and for models of the hub.

    Raises:
        ModelError: If the calibration cannot be read or its temperature is not a finite number above 0.
    """
    file = resolve(source) / CALIBRATION_FILE
    if not file.exists():
        return 1.0
    remedy = "Delete the file, fit the temperature again, or give a number as judge.temperature (1.0 for none)."
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the judge's calibration {file} cannot be read ({error}). {remedy}") from error
    if not isinstance(card, dict) or "temperature" not in card:
        raise ModelError(f"the judge's calibration {file} has no key 'temperature'. {remedy}")
    if not _usable(card["temperature"]):
        raise ModelError(
            f"the judge's calibration {file} has temperature {json.dumps(card['temperature'])}, expected a finite "
            f"number above 0. {remedy}"
        )
    return float(card["temperature"])


def _usable(temperature: Any) -> bool:
    is_number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    return is_number and 0 < temperature <= sys.float_info.max  # also false for NaN
