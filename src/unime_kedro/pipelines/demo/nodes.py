"""Nodes of pipeline ``demo``."""

import hashlib
import logging
import time
from pathlib import Path
from typing import Any

from unime_kedro.errors import ConfigurationError
from unime_kedro.parameters import DemoParameters, IngestParameters
from unime_kedro.paths import resolve
from unime_kedro.progress import progress

log = logging.getLogger(__name__)


def prepare_corpus(demo: DemoParameters, ingest: IngestParameters) -> tuple[dict[str, Any], dict[str, float]]:
    """Write mini-MMEB if that is what is mined and it is not there yet; leave data of your own alone.

    Args:
        demo: How mini-MMEB is made.
        ingest: Where the pairs to be mined are.

    Returns:
        What the corpus is, and how long it took.
    """
    start = time.perf_counter()
    root, pairs = resolve(demo.root), resolve(ingest.root)
    if root in (pairs, *pairs.parents):
        return ensure_mini_mmeb(demo)
    own = {"name": "own data", "root": ingest.root, "digest": pairs_digest(pairs, ingest.split)}
    return own, {"written": 0, "seconds": time.perf_counter() - start}


def ensure_mini_mmeb(demo: DemoParameters) -> tuple[dict[str, Any], dict[str, float]]:
    """Write mini-MMEB if it is not there yet, or was written with other parameters.

    Args:
        demo: How it is made.

    Returns:
        What the corpus is, and how long it took.
    """
    from unime_kedro.atomic import locked
    from unime_kedro.minimmeb.corpus import VERSION, folder_digest, read_manifest, write_corpus
    from unime_kedro.minimmeb.tasks import TASKS

    start = time.perf_counter()
    root = resolve(demo.root)
    sizes = (demo.train_pairs, demo.eval_queries, demo.validation_queries)
    unknown = sorted(set().union(*sizes) - set(TASKS))
    if unknown:
        raise ConfigurationError(f"demo: unknown data sets {unknown}; mini-MMEB has {', '.join(TASKS)}")
    options = demo.model_dump(exclude={"root"})
    total = sum(n for numbers in sizes for n in numbers.values())
    with locked(root.with_name(f".{root.name}.lock")):
        manifest = read_manifest(root)
        same = all(manifest.get(key) == value for key, value in {"version": VERSION, **options}.items())
        if same and manifest["digest"] == folder_digest(root):
            return {"name": "mini-MMEB", **manifest}, {"written": 0, "seconds": time.perf_counter() - start}
        with progress("drawing mini-MMEB", total, "pairs") as bar:
            manifest = write_corpus(root, **options, advance=bar.advance)
    log.info("wrote mini-MMEB: %s pictures under %s", f"{manifest['pictures']:,}", demo.root)
    return {"name": "mini-MMEB", **manifest}, {"written": total, "seconds": time.perf_counter() - start}


def pairs_digest(root: Path, split: str) -> str:
    """Return one hash over names and bytes of the raw pairs' files (``<data set>/<split>-*.parquet``), 64 hex digits.

    Pictures are hashed by ingest, one by one, into the items' content keys.
    """
    digest = hashlib.sha256()
    for file in sorted(root.glob(f"*/{split}-*.parquet")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
