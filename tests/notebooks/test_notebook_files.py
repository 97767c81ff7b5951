"""The committed notebooks: without results, without traces of the machine they were written on, each cell explained."""

from __future__ import annotations

import ast
import json
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_the_two() -> None:
    assert [file.name for file in NOTEBOOKS] == ["01_look_at_mined_negatives.ipynb", "02_compare_ablations.ipynb"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
class TestNotebook:
    def test_it_is_valid_and_has_no_results(self, file: Path) -> None:
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert cell.outputs == []
                assert cell.execution_count is None
            assert cell.metadata == {}
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)

    def test_nothing_tells_of_a_machine(self, file: Path) -> None:
        metadata = json.loads(file.read_text(encoding="utf-8"))["metadata"]
        assert metadata == {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        assert not re.search(r"(/home/|/work/|/tmp/|/Users/|/root/|[A-Z]:\\)", file.read_text(encoding="utf-8"))

    def test_every_cell_of_code_has_words_before_it_and_is_python(self, file: Path) -> None:
        cells = nbformat.read(file, as_version=4).cells
        kinds = [cell.cell_type for cell in cells]
        assert kinds[0] == "markdown"
        assert ("code", "code") not in set(pairwise(kinds))
        for cell in cells:
            if cell.cell_type == "code":
                ast.parse(cell.source)

    def test_it_says_what_the_embedded_models_are(self, file: Path) -> None:
        first = nbformat.read(file, as_version=4).cells[0].source
        assert re.search(r"\*\*The embedded models? (is|are) tiny and trained on synthetic drawings\.\*\*", first)

    def test_links_lead_somewhere(self, file: Path) -> None:
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "markdown":
                for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
                    assert target.startswith("http") or (FOLDER / target).exists(), target
