"""The hook that says how long a run would judge, before it runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from unime_kedro.config import Sources, data_root

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline import Pipeline

log = logging.getLogger(__name__)

#: what a run makes that judges
_JUDGED = "judge_scores"


class EstimateHook:
    """Ask before spending: a run that would judge for more than an hour says so in its first lines."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the configuration."""
        self._context = context

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Estimate the time of judging from the configuration and the sizes of files."""
        if _JUDGED not in pipeline.all_outputs():
            return
        try:
            text = self._announcement()
        except Exception:  # what is wrong with data or models is for the stages to say; an estimate stops no run
            log.debug("judging could not be estimated", exc_info=True)
            return
        if text is not None:
            log.warning("%s", text)

    def _announcement(self) -> str | None:
        from unime_kedro.planning.before_run import judging_announcement
        from unime_kedro.planning.settings import Settings

        context = self._context
        loader: Any = context.config_loader
        root = data_root(loader, context.project_path)
        sources = Sources(loader.conf_source, context.env, loader.runtime_params, "parameters")
        settings = Settings(context.env, ("judge",), loader["parameters"], loader["catalog"], root, sources)
        return judging_announcement(settings)
