"""Nodes of pipeline ``demo``."""

import json
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
    from unime_kedro.minimmeb.corpus import VERSION, folder_digest, write_corpus
    from unime_kedro.minimmeb.tasks import TASKS

    start = time.perf_counter()
    root, pairs = resolve(demo.root), resolve(ingest.root)
    if root not in (pairs, *pairs.parents):
        return {"name": "own data", "root": ingest.root}, {"written": 0, "seconds": 0.0}
    unknown = sorted((set(demo.train_pairs) | set(demo.eval_queries)) - set(TASKS))
    if unknown:
        raise ConfigurationError(f"demo: unknown data sets {unknown}; mini-MMEB has {', '.join(TASKS)}")
    wanted = {"version": VERSION, **demo.model_dump(exclude={"root"})}
    manifest = _manifest(root)
    if all(manifest.get(key) == value for key, value in wanted.items()) and manifest["digest"] == folder_digest(root):
        return {"name": "mini-MMEB", **manifest}, {"written": 0, "seconds": time.perf_counter() - start}
    total = sum(demo.train_pairs.values()) + sum(demo.eval_queries.values())
    with progress("drawing mini-MMEB", total, "pairs") as bar:
        manifest = write_corpus(root, **demo.model_dump(exclude={"root"}), advance=bar.advance)
    _manifest_file(root).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    log.info("wrote mini-MMEB: %s pictures under %s", f"{manifest['pictures']:,}", demo.root)
    return {"name": "mini-MMEB", **manifest}, {"written": total, "seconds": time.perf_counter() - start}


def _manifest_file(root: Path) -> Path:
    """The manifest lies beside the corpus, so that the digest of the folder does not include it."""
    return root.with_name(root.name + ".json")


def _manifest(root: Path) -> dict[str, Any]:
    """Return what an earlier run wrote; nothing if it did not come to its end."""
    try:
        return json.loads(_manifest_file(root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
