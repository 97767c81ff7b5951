"""Hooks of the project: parameters and places are checked before a run, and what it did is said after it."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from unime_kedro.config import Sources, check_parameters, data_root, fill_in, raise_faults
from unime_kedro.errors import ConfigurationError, ModelError
from unime_kedro.own_data import folder_faults, is_own_data
from unime_kedro.tracking.evidence import PAGES
from unime_kedro.tracking.files import written_elsewhere
from unime_kedro.tracking.hook import pipeline_label
from unime_kedro.tracking.metrics import SUFFIX, plain

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline

    from unime_kedro.tracking.hook import TrackingHook

#: folder of reports below the data root
REPORTING = "08_reporting"
#: what is made with a model -> the section of the parameters that names it; other nodes only mention the model
MODEL_OF = {"embeddings": "pool", "judge_scores": "judge", "trained_model": "train", "reranker": "rerank"}
#: what only a pipeline that reads the raw pairs makes
MADE_OF_RAW_PAIRS = "items"


class ParameterCheckHook:
    """Stops a run before it begins.

    It does so when any parameter, of whatever pipeline, is wrong, when a model folder or raw pairs that the pipeline
    needs are not there, or when the data root cannot be written.

    Attributes:
        reporting: The folder of reports, known from the moment the configuration is read.
    """

    def __init__(self) -> None:
        self.reporting: Path | None = None
        self._data_root = Path()
        self._parameters: dict[str, Any] = {}

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Check all parameters."""
        from kedro.config import MissingConfigException

        loader = context.config_loader
        self._data_root = data_root(loader, context.project_path)
        self.reporting = self._data_root / REPORTING
        try:
            raw = loader["parameters"]
        except MissingConfigException:
            raw = {}
        check_parameters(raw, loader.conf_source, context.env, loader.runtime_params)
        self._sources = Sources(loader.conf_source, context.env, loader.runtime_params, "parameters")
        # Kedro asks for them again a moment later; reading and resolving the files twice would cost .1 s
        loader["parameters"] = self._parameters = fill_in(raw)

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Check models, raw pairs and data root, before MLflow opens a run."""
        from unime_kedro.mllm.adapters import local_or_hub
        from unime_kedro.mllm.calibration import read_temperature

        made = pipeline.all_outputs()
        if MADE_OF_RAW_PAIRS in made and is_own_data(self._parameters):
            raise_faults(folder_faults(self._parameters["ingest"], self._sources), "parameters")
        for section in (section for output, section in MODEL_OF.items() if output in made):
            try:
                source = local_or_hub(self._parameters[section]["model"])
                if self._parameters[section].get("temperature") == "model":
                    read_temperature(source)
            except ModelError as error:
                raise ModelError(f"{section}.model, nothing was run: {error}") from error
        check_writable(self._data_root)


def check_writable(folder: Path) -> None:
    """Make the data root if need be, and make sure that files can be written there.

    Raises:
        ConfigurationError: Names the folder, the reason and where it is set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)  # an empty file can be made on a full disk
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or error
        raise ConfigurationError(
            f"the data root {folder} cannot be used, nothing was run: {reason}. It must be a folder "
            "that can be made and written, on a disk with space left; it is set by UNIME_DATA_ROOT, or by data_root "
            "in conf/*/globals.yml."
        ) from error


class SummaryHook:
    """Prints what was mined and where to look, after a run that mined something."""

    def __init__(self, tracking: TrackingHook | None = None) -> None:
        self._tracking = tracking
        self._data_root = Path()
        self._models: dict[str, str] = {}
        self._own_data = False

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the data lie."""
        self._data_root = data_root(context.config_loader, context.project_path)

    @hook_impl
    def after_catalog_created(self, parameters: dict[str, Any]) -> None:
        """Remember the models, and whose data are mined."""
        sections = plain(parameters["parameters"])
        found = {name: sections.get(name) for name in MODEL_OF.values()}
        self._models = {
            name: str(section["model"])
            for name, section in found.items()
            if isinstance(section, dict) and "model" in section
        }
        self._own_data = is_own_data(sections)

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Start counting."""
        self._metrics: dict[str, dict[str, Any]] = {}
        self._saved: set[str] = set()
        self._start, self._clock = time.time(), time.monotonic()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Keep the metrics of nodes that ran."""
        self._saved.add(dataset_name)
        self._keep(dataset_name, data)

    def _keep(self, dataset_name: str, data: Any) -> None:
        if dataset_name.endswith(SUFFIX) and isinstance(data, dict):
            self._metrics[dataset_name.removesuffix(SUFFIX)] = data

    @hook_impl(trylast=True)
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Print the summary."""
        from unime_kedro.summary import STAGES, place_lines, result_lines
        from unime_kedro.summary_models import MODEL_STAGES

        seconds = time.monotonic() - self._clock
        for name in written_elsewhere(pipeline, catalog, self._start, self._saved):
            self._saved.add(name)
            if name.endswith(SUFFIX):
                self._keep(name, catalog.load(name))
        if not any(stage in self._metrics for stage in (*STAGES, *MODEL_STAGES)) and self._saved.isdisjoint(PAGES):
            return
        title = f"{pipeline_label(run_params).strip('_')}: done in {seconds:,.1f} s"
        _print([title, *result_lines(self._metrics, self._models, self._own_data), *place_lines(self._places())])

    def _places(self) -> dict[str, str | Path | None]:
        reporting = self._data_root / REPORTING
        pages = {name.replace("_", " "): reporting / f"{name}.html" for name in PAGES if name in self._saved}
        run = self._tracking.last if self._tracking else None
        model = self._data_root / "06_models" / "trained"
        return {
            "model": model if "trained_model" in self._saved else None,
            "reranker": model.with_name("reranker") if "reranker" in self._saved else None,
            **{name: page for name, page in pages.items() if page.is_file()},
            "Data Docs": self._data_docs(),
            "MLflow": run.place if run else None,
        }

    def _data_docs(self) -> Path | None:
        """Return the Data Docs' first page if this run wrote it."""
        from unime_kedro.quality import data_docs_index

        page = data_docs_index(self._data_root)
        return page if page.is_file() and page.stat().st_mtime >= self._start else None


def _print(lines: list[str]) -> None:
    """Print lines, the first one bold on a terminal; never wrapped, so that paths stay whole."""
    if not sys.stdout.isatty():
        print("\n".join(lines), flush=True)
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(lines[0], style="bold green")
    for line in lines[1:]:
        console.print(line)
