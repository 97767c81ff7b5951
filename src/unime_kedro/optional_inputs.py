"""Inputs that a node can do without: it gets None for those that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

#: tag of the nodes whose free inputs may be missing
TAG = "optional_inputs"


class OptionalInputsHook:
    """Lets nodes with the tag ``optional_inputs`` read what exists, under the names that other pipelines write it.

    A second catalog entry for the same file would do as well, but Kedro would not know then that the node comes after
    the one that writes it: in ``kedro run --pipelines=evaluate,report`` the report would be made of older results.
    """

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Put an optional dataset in the place of each such input that nothing in this run makes."""
        from unime_kedro.io.optional import OptionalFile

        wanted = {name for node in pipeline.only_nodes_with_tags(TAG).nodes for name in node.inputs}
        for name in sorted(wanted & pipeline.inputs()):
            if name == "parameters" or name.startswith("params:") or name not in catalog:
                continue
            dataset = catalog.get(name)
            if dataset is not None and not isinstance(dataset, OptionalFile) and not dataset.exists():
                catalog._datasets[name] = OptionalFile(dataset)  # assigning by name would warn of a replaced dataset
