"""Resolves the configuration of the project in the working directory, and writes it to a file.

It is run as a file, ``python -P resolve_in_tree.py ENV PIPELINES OPTIONS FILE``, in the tree of another commit, whose
code does the work: what the configuration means depends on that code, too. So it uses nothing of its own version.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl


class _Kept:
    """A hook that keeps what the tracking hook is given."""

    @hook_impl
    def after_catalog_created(self, conf_catalog: dict[str, Any], parameters: dict[str, Any]) -> None:
        self.catalog, self.parameters = conf_catalog, parameters["parameters"]


def main(env: str, pipelines: str, options: str, file: str) -> None:
    """Write the configuration of a run of some pipelines, as it records it.

    Kedro gives typed sections their defaults only where one of the pipelines reads them.

    Args:
        env: Kedro's environment.
        pipelines: Their names, with ``+`` between them.
        options: Parameters of the command line, nested, as JSON.
        file: Where to write it.
    """
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    root = Path.cwd()
    bootstrap_project(root)
    kept = _Kept()
    with KedroSession.create(project_path=root, env=env or None, runtime_params=json.loads(options)) as session:
        context = session.load_context()  # type: ignore[attr-defined]
        if pipelines != "__default__":  # as Kedro's session does; there is no public way
            context._pipelines_to_validate = pipelines.split("+")
        context._hook_manager.register(kept)
        context.catalog  # noqa: B018  (makes it)
        loader = context.config_loader
    from unime_kedro.config import data_root
    from unime_kedro.tracking.provenance import resolved_config

    config = resolved_config(kept.parameters, kept.catalog, root, data_root(loader, root))
    Path(file).write_text(json.dumps(config, default=str), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
