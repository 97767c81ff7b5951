"""The Data Docs: pages that gather the latest result of every suite, over stages and processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from quality_tables import FILES, REFERENCES, edit

from unime_kedro.quality import TableError, TableValidator, data_docs_index

Tables = dict[str, pl.DataFrame]

#: one stage: saves one table of the corpus, then says what it had to import
STAGE = """
import sys, warnings
warnings.simplefilter("always")
sys.path.insert(0, sys.argv[1])
import polars as pl
from quality_tables import FILES, REFERENCES, good_tables
import unime_kedro.quality
assert not {"great_expectations", "pandas", "torch"} & set(sys.modules), "imported too early"
suite, root = sys.argv[2:]
references = {name: f"{root}/{FILES[name]}" for name in REFERENCES[suite]}
docs = f"{root}/08_reporting/data_docs"
unime_kedro.quality.TableValidator(suite, references, docs).validate(good_tables()[suite])
print(sorted({"great_expectations", "torch", "transformers", "mlflow", "faiss"} & set(sys.modules)))
"""


def _validator(suite: str, data_root: Path) -> TableValidator:
    references = {name: str(data_root / FILES[name]) for name in REFERENCES[suite]}
    return TableValidator(suite, references, str(data_root / "08_reporting/data_docs"))


def _pages(data_root: Path) -> list[Path]:
    return sorted((data_root / "08_reporting/data_docs/validations").rglob("*.html"))


def test_index_mentions_the_suite_and_its_result(tables: Tables, data_root: Path) -> None:
    _validator("queries", data_root).validate(tables["queries"])

    index = data_docs_index(data_root)
    assert index == data_root / "08_reporting/data_docs/index.html"
    (page,) = _pages(data_root)
    link = page.relative_to(index.parent).as_posix()
    assert link in index.read_text()
    text = page.read_text()
    assert "Succeeded" in text
    assert "positive_item_id is in items" in text
    assert "checked: all 3 rows" in text
    assert (index.parent / "expectations/queries.html").is_file()


def test_failed_table_is_shown_with_its_rows(tables: Tables, data_root: Path) -> None:
    with pytest.raises(TableError) as caught:
        _validator("pool", data_root).validate(edit(tables["pool"], 4, item_id=987654))

    assert f"All results: {data_docs_index(data_root)}" in str(caught.value)
    (page,) = _pages(data_root)
    assert "Failed" in page.read_text()
    assert "query_id=1 rank=1 item_id=987654 item_exists=False" in page.read_text()


def test_values_are_text_in_the_pages(tables: Tables, data_root: Path) -> None:
    with pytest.raises(TableError):
        _validator("items", data_root).validate(edit(tables["items"], 4, modality="<b>$x & ${y}</b>"))

    (page,) = _pages(data_root)
    assert "<b>$x" not in page.read_text()
    assert "item_id=4 modality=&#x27;&lt;b&gt;$x &amp; ${y}&lt;/b&gt;&#x27;" in page.read_text()


def test_only_the_latest_result_of_a_suite_is_kept(tables: Tables, data_root: Path) -> None:
    validator = _validator("queries", data_root)
    _validator("items", data_root).validate(tables["items"])
    with pytest.raises(TableError):
        validator.validate(edit(tables["queries"], 1, dataset=""))
    (first,) = [page for page in _pages(data_root) if "queries" in page.parts]
    files = len(list((data_root / "08_reporting").rglob("*")))
    for _ in range(3):
        validator.validate(tables["queries"])

    assert len(list((data_root / "08_reporting").rglob("*"))) == files
    index = data_docs_index(data_root).read_text()
    assert len(_pages(data_root)) == 2
    assert all(page.relative_to(data_docs_index(data_root).parent).as_posix() in index for page in _pages(data_root))
    assert first.parent.name not in index
    (latest,) = [page for page in _pages(data_root) if "queries" in page.parts]
    assert "Succeeded" in latest.read_text()


def test_two_data_roots_do_not_mix(tables: Tables, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    _validator("items", data_root).validate(tables["items"])
    _validator("items", other).validate(tables["items"])
    _validator("queries", data_root).validate(tables["queries"])

    assert {page.name for page in _pages(data_root)} == {"items-items.html", "queries-queries.html"}
    assert {page.name for page in _pages(other)} == {"items-items.html"}


def test_pages_report_to_nobody(tables: Tables, data_root: Path) -> None:
    """Great Expectations' own pages fetch their logo with an installation id and the time in the address."""
    _validator("items", data_root).validate(tables["items"])
    docs = data_root / "08_reporting/data_docs"
    for page in docs.rglob("*.html"):
        text = page.read_text()
        assert "dataContextId" not in text
        assert "great-expectations-web-assets" not in text
    logo = "static/images/logo-long.png"
    assert (docs / logo).is_file()
    assert f'src="{logo}"' in data_docs_index(data_root).read_text()
    assert f'src="../../../../{logo}"' in _pages(data_root)[0].read_text()


def test_no_data_docs_without_a_folder(tables: Tables, data_root: Path) -> None:
    verdict = TableValidator("items").check(tables["items"])

    assert verdict.data_docs is None
    assert not (data_root / "08_reporting").exists()


def test_stages_in_two_processes_share_an_index(data_root: Path) -> None:
    here = str(Path(__file__).parent)
    for suite in ("queries", "negatives"):
        stage = subprocess.run(
            [sys.executable, "-c", STAGE, here, suite, str(data_root)], capture_output=True, text=True, check=False
        )
        # nothing heavy is loaded, and no progress bar, warning or log line reaches the terminal
        assert (stage.returncode, stage.stdout, stage.stderr) == (0, "['great_expectations']\n", "")

    index = data_docs_index(data_root).read_text()
    assert "queries-queries.html" in index
    assert "negatives-negatives.html" in index


def test_without_a_network_the_index_lists_every_result_plainly(tables: Tables, data_root: Path) -> None:
    _validator("queries", data_root).validate(tables["queries"])
    with pytest.raises(TableError):
        _validator("pool", data_root).validate(edit(tables["pool"], 4, item_id=987654))

    text = data_docs_index(data_root).read_text()
    plain = text[text.index('<div id="plain-results"') : text.index('getElementById("plain-results")')]
    links = [page.relative_to(data_docs_index(data_root).parent).as_posix() for page in _pages(data_root)]
    assert [f'FAILED: <a href="{links[0]}">pool</a>', f'passed: <a href="{links[1]}">queries</a>'] == [
        row.split("</li>")[0] for row in plain.split("<li>")[1:]
    ]
