"""``unime dvc-yaml`` and ``unime reproduce``."""

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
    of its nodes, and on every module that its nodes run, through all imports. --check also names the stages whose
    results in dvc.lock are of other code than the present; that alone is no fault.
    """
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.command_errors import readable_errors
    from unime_kedro.paths import project_root
    from unime_kedro.reproduce.dvc_yaml import FILE, difference, stages_in, write_dvc_yaml
    from unime_kedro.reproduce.lock import changed_code, note_on

    root, name = project_root(), out or FILE
    with readable_errors():
        if not check:
            changed = write_dvc_yaml(root, env, out)
            click.echo(f"{name}: {'written' if changed else 'up to date already'}")
            return
        found = difference(root, env, out)
        if note := "" if out else note_on(changed_code(root, stages_in(root / FILE))):
            click.echo(note, err=True)
    if found:
        click.echo(found, nl=False)
        click.echo(f"{name} is not what pipelines and catalog say; `unime dvc-yaml` writes it anew.", err=True)
        sys.exit(1)


@click.command("reproduce", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def reproduce_command(arguments: tuple[str, ...]) -> None:
    """Run `dvc repro` with these ARGUMENTS, then look whether every file has the bytes that dvc.lock says.

    DVC alone trusts its cache, and does not notice when a file in it is damaged.
    """
    from unime_kedro.command_errors import readable_errors
    from unime_kedro.paths import project_root
    from unime_kedro.reproduce.run import reproduce

    with readable_errors():
        sys.exit(reproduce(project_root(), arguments))
