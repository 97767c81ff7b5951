"""``unime export-artifact``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("export-artifact")
@click.argument("run")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--with-models", is_flag=True, help="Weights too, not only their hashes and cards.")
@click.option("--without-data", is_flag=True, help="No tables but predictions; their hashes stay.")
@click.option("--anyway", is_flag=True, help="Also a run that did not come to its end.")
@click.option("--force", is_flag=True, help="Replace OUT.")
def export_command(run: str, out: Path, with_models: bool, without_data: bool, anyway: bool, force: bool) -> None:
    """Write a run, and the runs upstream of it, to one zip file for reviewers: OUT.

    Reports, configuration, predictions, the mined data set with a Croissant description, model cards, and all hashes as
    RO-Crate metadata. `unime audit --artifact OUT` checks it. RUN is named as for `unime audit`.
    """
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.artifact.writing import export_artifact
    from unime_kedro.audit.record import find_run
    from unime_kedro.command_errors import readable_errors
    from unime_kedro.paths import project_root
    from unime_kedro.tracking.opening import open_client, tracking_uri

    with readable_errors():
        root = project_root()
        client = open_client(tracking_uri(root))
        done = export_artifact(
            find_run(client, run), client, root, out,
            with_models=with_models, with_data=not without_data, anyway=anyway, force=force,
        )  # fmt: skip
    size = done.file.stat().st_size / 2**20
    click.echo(f"wrote {done.file}: {done.runs} runs, {done.files} files, {size:.1f} MiB")
    if done.absent:
        click.echo(f"not in it: {len(done.absent)} files, named with why in its absent.json")
    if done.telling:
        shown = ", ".join(done.telling[:3]) + (f", and {len(done.telling) - 3} more" if len(done.telling) > 3 else "")
        click.echo(f"names places of this machine: {shown}; look at them before you hand it in")
    click.echo(f"sha256 {done.sha256}")
