"""Where Great Expectations keeps its results and Data Docs.

Results of all stages and processes gather below one data root: ``08_reporting/gx`` holds the latest result of every
suite as JSON, ``08_reporting/data_docs`` the pages made from them. Great Expectations gives every run a page of its own
with a time stamp in its path; those of earlier runs are removed, so that the folders do not grow. The pages are no
outputs to version: their paths change with every run.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from unime_kedro.paths import resolve

#: below the data root
DATA_DOCS = Path("08_reporting/data_docs")
#: The pages ask this server for their logo, and tell it an installation id and the time. Ours use their own copy.
_BEACON = re.compile(r"https://great-expectations-web-assets\.s3[.a-z0-9-]*\.amazonaws\.com/([\w.-]+)(\?[^\"']*)?")


def data_docs_index(data_root: str | Path) -> Path:
    """Return the first page of the Data Docs of a data root; it exists once a table has been checked.

    Args:
        data_root: Folder of the data layers, relative to the project root.
    """
    return resolve(data_root) / DATA_DOCS / "index.html"


def make_context(docs: Path | None) -> Any:
    """Make a Great Expectations context.

    It is an ephemeral one whose result stores lie on disk: unlike a file context it leaves no project skeleton and
    needs no configuration file, which two processes could write at the same time.

    Args:
        docs: Folder of the Data Docs; results go beside it, to ``gx``. None keeps everything in memory.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, ProgressBarsConfig

    memory = {"class_name": "InMemoryStoreBackend"}
    expectations, results, sites = memory, memory, {}
    if docs is not None:
        expectations, results = _folder(_expectations_folder(docs)), _folder(_results_folder(docs))
        sites["data_docs"] = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": _folder(docs),
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "site_section_builders": {"profiling": "None"},  # the word: Great Expectations compares texts here
        }
    config = DataContextConfig(
        config_version=4.0,
        stores={
            "expectations": {"class_name": "ExpectationsStore", "store_backend": expectations},
            "results": {"class_name": "ValidationResultsStore", "store_backend": results},
            "validation_definition_store": {"class_name": "ValidationDefinitionStore", "store_backend": memory},
            "checkpoints": {"class_name": "CheckpointStore", "store_backend": memory},
        },
        expectations_store_name="expectations",
        validation_results_store_name="results",
        checkpoint_store_name="checkpoints",
        data_docs_sites=sites,
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _expectations_folder(docs: Path) -> Path:
    return docs.parent / "gx" / "expectations"


def _results_folder(docs: Path) -> Path:
    return docs.parent / "gx" / "results"


def _folder(path: Path) -> dict[str, str]:
    return {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(path)}


def publish(context: Any, suite: str, docs: Path) -> None:
    """Build the pages of a suite's latest result and the index over all suites; drop the suite's earlier results."""
    from great_expectations.data_context.types.resource_identifiers import ExpectationSuiteIdentifier

    store = context.validation_results_store
    runs = [key for key in store.list_keys() if key.expectation_suite_identifier.name == suite]
    latest = max(runs, key=lambda key: key.run_id.run_time)
    for key in runs:
        if key != latest:
            store.remove_key(key)
    # this also removes the pages of results that are gone
    context.build_data_docs(resource_identifiers=[ExpectationSuiteIdentifier(suite), latest])
    for folder in (_results_folder(docs) / suite, docs / "validations" / suite):
        _remove_empty_folders(folder)
    pages = [docs / "index.html", docs / "expectations" / f"{suite}.html"]
    for page in (*pages, *(docs / "validations" / suite).rglob("*.html")):
        _remove_beacon(page, docs)
    _list_plainly(store, docs)


def _list_plainly(store: Any, docs: Path) -> None:
    """Add a plain list of results to the index: without a network its own table is empty.

    The table is drawn by a script from a public server. Where that arrives, the plain list takes itself away.
    """
    rows = []
    for key in sorted(store.list_keys(), key=lambda key: key.expectation_suite_identifier.name):
        page = docs.joinpath("validations", *key.to_tuple()).with_suffix(".html")
        if page.is_file():
            outcome = "passed" if store.get(key).success else "FAILED"
            link = page.relative_to(docs).as_posix()
            rows.append(f'<li>{outcome}: <a href="{link}">{key.expectation_suite_identifier.name}</a></li>')
    index = docs / "index.html"
    text = index.read_text(encoding="utf-8")
    plain = (
        f'<div id="plain-results" style="margin: 2rem"><h2>Tables</h2><ul>{"".join(rows)}</ul></div>'
        '<script>if (window.jQuery) document.getElementById("plain-results").remove()</script>'
    )
    # behind the page's own navigation and in front of its footer
    body, closing, rest = text.rpartition("<footer>")
    if not closing:
        body, closing, rest = text.rpartition("</body>")
    index.write_text(body + plain + closing + rest, encoding="utf-8")


def _remove_empty_folders(folder: Path) -> None:
    # deepest first; Great Expectations means to do this itself, but leaves the folder of every run behind
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            below.rmdir()


def _remove_beacon(page: Path, docs: Path) -> None:
    up = "../" * (len(page.relative_to(docs).parts) - 1)
    text = page.read_text(encoding="utf-8")
    page.write_text(_BEACON.sub(rf"{up}static/images/\1", text), encoding="utf-8")
