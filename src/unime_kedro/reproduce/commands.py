"""``unime dvc-yaml``."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command("dvc-yaml")
@click.option("--check", is_flag=True, help="Change nothing; print how the file differs, and end with status 1 if so.")
@click.option("--env", "-e", default="base", show_default=True, help="Kedro's environment of the stages.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Another file than dvc.yaml.")
def dvc_yaml_command(check: bool, env: str, out: Path | None) -> None:
    """Write dvc.yaml from the pipelines, the catalog and the parameters.

    A stage per pipeline, and one per arm and seed of the ablation. It depends on the files it reads, on the parameters
    of its nodes, and on every module that its nodes run, through all imports.
    """
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.command_errors import readable_errors
    from unime_kedro.paths import project_root
    from unime_kedro.reproduce.dvc_yaml import FILE, difference, write_dvc_yaml

    root, name = project_root(), out or FILE
    with readable_errors():
        if not check:
            changed = write_dvc_yaml(root, env, out)
            click.echo(f"{name}: {'written' if changed else 'up to date already'}")
            return
        found = difference(root, env, out)
    if found:
        click.echo(found, nl=False)
        click.echo(f"{name} is not what pipelines and catalog say; `unime dvc-yaml` writes it anew.", err=True)
        sys.exit(1)
