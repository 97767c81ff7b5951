"""Command lines: Kedro's own ``run`` with readable errors, and ``unime`` for what is not a pipeline.

Kedro looks here for a click group ``cli``, whose commands win over its own, and for ``run``. Both are made when they
are asked for, so that ``unime`` starts without Kedro.
"""

from __future__ import annotations

import copy
import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unime_kedro import __version__
from unime_kedro.artifact.command import export_command
from unime_kedro.audit.command import audit_command
from unime_kedro.command_errors import RunFailed, readable_errors
from unime_kedro.exchange.commands import export_negatives_command, import_pool_command, import_scores_command
from unime_kedro.fetching.check_command import check_data_command
from unime_kedro.fetching.command import fetch_command
from unime_kedro.fetching.own_command import init_data_command
from unime_kedro.planning.command import plan_command
from unime_kedro.planning.options import params_over_file
from unime_kedro.reproduce.commands import dvc_yaml_command, reproduce_command
from unime_kedro.reproduce.diagram_command import picture_command
from unime_kedro.reproduce.results_command import check_results_command
from unime_kedro.runs_commands import made_by_command, runs_group
from unime_kedro.score_commands import benchmarks_command, scores_group

if TYPE_CHECKING:
    from types import FrameType

# ------------------------------------------------------------------------------------------------ kedro run


class _KedroCommands(click.Group):
    """The commands of this project that replace Kedro's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return ["run"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, made when it is first asked for."""
        return run_command() if cmd_name == "run" else None


cli = _KedroCommands(name="kedro")


def __getattr__(name: str) -> Any:
    if name == "run":  # what Kedro calls when the project is run as a package
        return run_command()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def run_command() -> click.Command:
    """Return Kedro's ``run`` with all its options, its work wrapped by :func:`guarded`."""
    from kedro.framework.cli.project import run as kedro_run

    command: click.Command = copy.copy(kedro_run)
    assert command.callback is not None
    command.callback = guarded(command.callback)
    return command


def guarded(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the work of ``kedro run``: readable errors, and runs that are interrupted end as KILLED.

    Args:
        callback: Kedro's function behind the command.

    Returns:
        A function with the same options. ``--pipeline=x`` is passed on as ``--pipelines=x``: Kedro 1.7 prints a
        warning for the former, which our documents use because it reads better for one pipeline.
    """

    @functools.wraps(callback)
    def run(**options: Any) -> Any:
        if options.get("pipeline") and not options.get("pipelines"):
            options |= {"pipeline": None, "pipelines": [options["pipeline"]]}
        options |= params_over_file(click.get_current_context(silent=True), options)
        _configure_logging()
        try:
            with _sigterm_interrupts():
                return callback(**options)
        except (KeyboardInterrupt, _Terminated) as stop:
            _tracking("interrupted", "SIGTERM" if isinstance(stop, _Terminated) else "interrupted from the keyboard")
            click.echo("Interrupted. What was saved before stays; the same command starts again.", err=True)
            sys.exit(143 if isinstance(stop, _Terminated) else 130)
        except Exception as error:
            _tracking("failed", error)
            if (failure := _readable(error)) is None:
                raise
            raise failure from error

    return run


class _Terminated(KeyboardInterrupt):
    """SIGTERM; a KeyboardInterrupt, so that whatever cleans up after Ctrl-C does so now too."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM (``kill``, a batch system's time limit) interrupt like Ctrl-C instead of ending the process."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _configure_logging() -> None:
    from unime_kedro.logs import configure_logging
    from unime_kedro.paths import project_root

    configure_logging(project_root())


def _tracking(method: str, *arguments: Any) -> None:
    """End the tracked run, if one is open: Kedro's hooks are not called for every way in which a run can end."""
    from unime_kedro.tracking.hook import TrackingHook

    for hook in _hooks():
        if isinstance(hook, TrackingHook):
            getattr(hook, method)(*arguments)


def _readable(error: Exception) -> RunFailed | None:
    """Return the short form of an error, its traceback put away in a file; None for one that must be seen whole.

    The file is named where the traceback may tell more than the message.
    """
    from unime_kedro.failures import is_self_explaining, message_of, write_traceback
    from unime_kedro.logs import resume_hint
    from unime_kedro.paths import resolve
    from unime_kedro.summary import shorten
    from unime_kedro.tracking.provenance import command_line

    message = message_of(error)
    if message is None:
        return None
    folder = next((hook.reporting for hook in _hooks() if getattr(hook, "reporting", None)), None)
    file = write_traceback(error, folder or resolve("data/08_reporting"), command_line(), resume_hint.text)
    if file is None or is_self_explaining(error):
        return RunFailed(message)
    return RunFailed(f"{message}\n(traceback: {shorten(file)})")


def _hooks() -> tuple[Any, ...]:
    from kedro.framework.project import settings

    try:
        return tuple(settings.HOOKS)
    except Exception:  # settings that cannot be imported are themselves the error to report
        return ()


# ------------------------------------------------------------------------------------------------ unime


@click.group(commands=[dvc_yaml_command, reproduce_command], context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", "-V", prog_name="unime-kedro")
def main() -> None:
    """Tools around the pipelines of unime-kedro. Pipelines themselves are run with `kedro run`."""


main.add_command(benchmarks_command)
main.add_command(fetch_command)
main.add_command(check_data_command)
main.add_command(init_data_command)
main.add_command(plan_command)
main.add_command(audit_command)
main.add_command(export_command)
main.add_command(check_results_command)
main.add_command(picture_command)
main.add_command(scores_group)
main.add_command(runs_group)
main.add_command(made_by_command)
main.add_command(export_negatives_command)
main.add_command(import_pool_command)
main.add_command(import_scores_command)


@main.command("import-release")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that receives the tables. Without it the file is only checked.",
)
@click.option(
    "--image-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that the file's image paths are relative to. Equal images under different names become one item.",
)
def import_release_command(file: Path, out: Path | None, image_root: Path | None) -> None:
    """Read a file of mined negatives in the format of the UniME-V2 release, and check it.

    Rows that break the paper's own rule are counted and shown, they are no error.
    """
    from unime_kedro.io.release import format_import_report, import_release, write_imported

    with readable_errors():
        imported = import_release(file, image_root)
        click.echo(format_import_report(imported))
        if out is not None:
            click.echo("\n".join(f"wrote {path}" for path in write_imported(imported, out)))


@main.command("join")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--machine-rank", type=click.IntRange(min=1), required=True, help="Which machine this is; 0 runs Kedro.")
def join_command(folder: Path, machine_rank: int) -> None:
    """Train along on another machine.

    FOLDER is the training's folder, <data root>/06_models/training/<hash>, which the machines share. The machine that
    runs `kedro run --pipeline=train` with train.distributed.machines above 1 waits for the others at
    train.distributed.address.
    """
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.failures import message_of
    from unime_kedro.learning.launch import run_training
    from unime_kedro.learning.run_folder import read_job
    from unime_kedro.pipelines.train.jobs import check_hardware

    try:
        with _sigterm_interrupts():
            _configure_logging()
            train = read_job(folder).train
            check_hardware(train)
            options = {**train.distributed.model_dump(), "section": train.section}
            run_training(folder, machine_rank=machine_rank, on_event=lambda event: None, **options)
    except KeyboardInterrupt as stop:
        sys.exit(143 if isinstance(stop, _Terminated) else 130)
    except Exception as error:
        if (message := message_of(error)) is None:
            raise
        raise RunFailed(message) from error


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    try:
        return None if value is None else [int(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"expected whole numbers with commas between them, got {value!r}") from error


@main.command("ablate")
@click.argument("group", required=False)
@click.option("--seeds", callback=_numbers, help="Seeds to run, such as 1,2,3. Without it those of the group.")
@click.option("--arms", help="Arms to run, with commas between them. Without it all.")
@click.option("--jobs", type=click.IntRange(min=1), help="Runs side by side: one per core, one alone on GPUs.")
@click.option("--env", "-e", help="Kedro's environment.")
@click.option("--tune", is_flag=True, help="Find each arm's best value of the group's tune.key on validation data.")
@click.option("--dry-run", is_flag=True, help="Check everything and show what would be run.")
@click.option("--table", type=click.Choice(["after", "skip", "only"]), default="after", help="When to make the table.")
@click.option("--list", "list_", is_flag=True, help="Show the groups.")
def ablate_command(
    group: str | None,
    seeds: list[int] | None,
    arms: str | None,
    jobs: int | None,
    env: str | None,
    tune: bool,
    dry_run: bool,
    table: str,
    list_: bool,
) -> None:
    """Compare the arms of GROUP, one of those in conf/base/ablations.yml.

    Every arm is run with every seed in a process of its own, on the same mined data; what is done already is not run
    again, so that the same command goes on where it was stopped.
    """
    if group is None and not list_:
        raise click.UsageError("Name a GROUP; `unime ablate --list` shows them.")
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.ablations.command import Choice, ablate, list_groups
    from unime_kedro.failures import message_of

    try:
        with _sigterm_interrupts():
            _configure_logging()
            if group is None:
                list_groups(env, click.echo)
                return
            chosen = [name.strip() for name in arms.split(",")] if arms else None
            complete = ablate(Choice(group, chosen, seeds, jobs, env, tune, dry_run, table), click.echo)
    except KeyboardInterrupt as stop:
        click.echo("Interrupted. Finished runs stay; the same command goes on with the others.", err=True)
        sys.exit(143 if isinstance(stop, _Terminated) else 130)
    except Exception as error:
        if (message := message_of(error)) is None:
            raise
        raise RunFailed(message) from error
    sys.exit(0 if complete else 1)
