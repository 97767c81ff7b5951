"""Errors of commands, as a user reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


class RunFailed(click.ClickException):
    """An error whose message is all a user needs."""

    def show(self, file: Any = None) -> None:
        """Print the message to the error stream."""
        click.secho("Error: ", fg="red", bold=True, nl=False, err=True, file=file)
        click.echo(self.message, err=True, file=file)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn our own errors and refusals of the operating system into :class:`RunFailed`; other errors pass."""
    from unime_kedro.errors import UnimeError

    try:
        yield
    except UnimeError as error:
        raise RunFailed(str(error)) from error
    except Exception as error:
        from unime_kedro.failures import system_message

        if (message := system_message(error)) is None:
            raise
        raise RunFailed(message) from error
