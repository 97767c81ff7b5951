"""Fixtures of the tests of ablations."""

from __future__ import annotations

from pathlib import Path

import pytest
from ablation_project import AblationProject


@pytest.fixture
def small(tmp_path: Path) -> AblationProject:
    """A project whose commands are run as processes."""
    return AblationProject(tmp_path / "small")
