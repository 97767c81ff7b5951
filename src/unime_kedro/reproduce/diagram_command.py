"""``unime picture``: the picture of the pipelines, drawn from the registry and the catalog."""

from __future__ import annotations

import sys
from pathlib import Path

import click

#: where the README expects it, from the project root
FILE = "docs/images/pipeline.svg"
TITLE = "The stages of unime-kedro, and what each of them reads and writes"


def picture(root: Path) -> str:
    """Return the picture of a project's pipelines as an SVG document.

    Args:
        root: The project's folder. Its environment ``base`` is drawn: what lies in ``conf/local`` is one person's own.
    """
    from unime_kedro.ablations.project import Project
    from unime_kedro.reproduce.diagram import diagram
    from unime_kedro.reproduce.diagram_svg import svg
    from unime_kedro.reproduce.dvc_yaml import STAGES

    catalog = Project("base", root).base.catalog
    from kedro.framework.project import pipelines

    return svg(*diagram(pipelines, STAGES, catalog), TITLE)


@click.command("picture")
@click.option("--check", is_flag=True, help="Change nothing; end with status 1 if the file is not what would be drawn.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help=f"Another file than {FILE}.")
def picture_command(check: bool, out: Path | None) -> None:
    """Draw the pipelines and the tables between them as SVG, light and dark."""
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.atomic import atomic_write
    from unime_kedro.command_errors import readable_errors
    from unime_kedro.paths import project_root

    root = project_root()
    file = out or root / FILE
    with readable_errors():
        drawn = picture(root)
        same = file.is_file() and file.read_text(encoding="utf-8") == drawn
        if not check and not same:
            with atomic_write(file) as temporary:
                temporary.write_text(drawn, encoding="utf-8")
    if check and not same:
        click.echo(f"{file} is not what pipelines and catalog say; `unime picture` draws it anew.", err=True)
        sys.exit(1)
    click.echo(f"{file}: {'up to date' if same else 'drawn'}")
