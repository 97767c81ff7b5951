"""``unime fetch``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unime_kedro.fetching.listing import Listing
    from unime_kedro.fetching.sources import Source

#: names of :data:`unime_kedro.fetching.sources.SOURCES`, here so that ``unime --help`` loads nothing
SOURCE_NAMES = ("mmeb-train", "mmeb-eval", "flickr30k", "coco", "sharegpt4v", "urban1k", "sugarcrepe")


@click.command("fetch")
@click.argument("name", metavar="NAME", type=click.Choice(SOURCE_NAMES))
@click.option("--root", type=click.Path(path_type=Path), help="Folder; the one that conf/paper reads by default.")
@click.option("--only", help="Data sets of mmeb-train, with commas; all by default.")
@click.option("--split", help="Of mmeb-train: original (default) or diverse_instruction.")
@click.option("--revision", help="Another commit of the hub than the pinned one.")
@click.option("--endpoint", envvar="HF_ENDPOINT", show_envvar=True, help="The hub, or a mirror of it.")
@click.option("--web", help="A mirror of files that are not on the hub.")
@click.option("--keep-archives", is_flag=True, help="Keep zip files after they were unpacked.")
@click.option("--verify", is_flag=True, help="Compute checksums of files that are there again.")
@click.option("--dry-run", is_flag=True, help="What would be fetched, and how large it is.")
def fetch_command(
    name: str,
    root: Path | None,
    only: str | None,
    split: str | None,
    revision: str | None,
    endpoint: str | None,
    web: str | None,
    keep_archives: bool,
    verify: bool,
    dry_run: bool,
) -> None:
    """Fetch published data into 01_raw, at a pinned revision.

    NAME: mmeb-train, mmeb-eval, flickr30k, coco, sharegpt4v, urban1k, sugarcrepe. Stopped, even killed, it goes on
    where it was; every file is checked against its published checksum before it counts. See docs/data.md.
    """
    from unime_kedro.command_errors import readable_errors

    with readable_errors():
        from unime_kedro.errors import DataError
        from unime_kedro.fetching.fetch import by_hand
        from unime_kedro.fetching.listing import HUB, list_source
        from unime_kedro.fetching.sources import SOURCES

        source = SOURCES[name]
        folder = root or default_folder(source)
        if revision:
            source = at_revision(source, revision)
        datasets = tuple(part.strip() for part in only.split(",")) if only else ()
        click.echo(f"{source.title}\nlicence: {source.licence}")
        try:
            listing = list_source(source, datasets, split, (endpoint or HUB).rstrip("/"), web)
            _announce(listing, folder)
            if not dry_run:
                _fetch(source, listing, folder, keep_archives, verify)
        except DataError as error:
            raise DataError(f"{error}\n{by_hand(source, folder, datasets, split)}") from error
        if source.by_hand:
            click.echo("by hand: " + source.by_hand.format(folder=folder))
        if not dry_run:
            click.echo(f"next: unime check-data {folder}, then {source.used_by}")


def default_folder(source: Source) -> Path:
    """Return the folder of a source below ``01_raw`` of the paper's environment."""
    import os

    from unime_kedro.paths import resolve

    root = os.environ.get("UNIME_DATA_ROOT")
    return (Path(root) if root else resolve("data/paper")) / "01_raw" / source.folder


def at_revision(source: Source, revision: str) -> Source:
    """Return a source at another commit of the hub."""
    from unime_kedro.fetching.sources import HubPart

    parts = (replace(part, revision=revision) if isinstance(part, HubPart) else part for part in source.parts)
    return replace(source, parts=tuple(parts))


def _announce(listing: Listing, folder: Path) -> None:
    known = sum(file.size or 0 for file in listing.files)
    unknown = sum(file.size is None for file in listing.files)
    more = f" and {unknown} of unknown size" if unknown else ""
    for repository, commit in listing.commits.items():
        click.echo(f"from {repository} at {commit}")
    click.echo(f"{len(listing.files):,} files, {known / 2**30:,.2f} GiB{more}, into {folder}")


def _fetch(source: Source, listing: Listing, folder: Path, keep_archives: bool, verify: bool) -> None:
    from huggingface_hub import get_token

    from unime_kedro.fetching.fetch import fetch
    from unime_kedro.progress import progress

    total = sum(file.size or 0 for file in listing.files) >> 20
    with progress("fetching", total, "MiB") as bar:
        bytes_ = [0]

        def advance(n: int) -> None:
            bytes_[0] += n
            bar.advance((bytes_[0] >> 20) - bar.done)

        found = fetch(
            source, listing, folder, token=get_token(), keep_archives=keep_archives, verify=verify, advance=advance
        )
    click.echo(
        f"{found.new:,} files came, {found.there:,} were there, {found.unpacked:,} came out of archives; "
        f"checksums: {folder / 'fetched.json'}"
    )
