"""What the nodes of pipeline ``train`` put together and check."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.learning.run_folder import FAILED_BATCH, Job, write_job
from unime_kedro.own_data import is_embedded_model
from unime_kedro.parameters import (
    DemoParameters,
    IngestParameters,
    RerankParameters,
    TrainingParameters,
    TrainParameters,
)
from unime_kedro.paths import project_root, resolve

#: parameters that the trained weights do not depend on
_OPERATION = {
    "model",  # by its fingerprint
    "revision",
    "chunk",  # rounding alone
    "stop_gradient_norm",
    "image_workers",
    "cache_gb",
    "log_every",
    "checkpoint_every",
    "distributed",  # the number of processes counts: they drop different numbers
    "resume_from",  # by content
    "validation",  # its queries count: their figures are part of the result
}
#: raise when the same parameters give other weights than before
_VERSION = 1


def is_embedded_corpus(ingest: IngestParameters, demo: DemoParameters) -> bool:
    """Whether mini-MMEB is what is mined."""
    root, pairs = resolve(demo.root), resolve(ingest.root)
    return root in (pairs, *pairs.parents)


def validation_root(train: TrainParameters, ingest: IngestParameters, demo: DemoParameters) -> Path | None:
    """Return the folder of validation sets, None where queries are held out instead."""
    if train.validation.root is not None:
        return resolve(train.validation.root)
    own = resolve(demo.root) / "validation"
    return own if is_embedded_corpus(ingest, demo) and own.is_dir() else None


def check_pictures(training: pl.DataFrame, items: pl.DataFrame, image_root: Path) -> None:
    """Make sure that every picture that training needs is a file, without reading it.

    Raises:
        DataError: Names a query and a picture that are not there, and how many.
    """
    mentions = pl.concat(
        [
            training.select("query_id", "item_id"),
            training.select("query_id", item_id="positive_item_id"),
            training.select("query_id", item_id="negative_item_ids").explode("item_id"),
        ]
    )
    shown = mentions.join(items.filter(pl.col("image") != "").select("item_id", "image"), on="item_id")
    paths = shown["image"].unique().to_list()
    missing = [path for path in paths if not (image_root / path).is_file()]
    if missing:
        first = shown.filter(pl.col("image") == min(missing)).row(0, named=True)
        raise DataError(
            f"query_id {first['query_id']}, item {first['item_id']}: there is no picture {image_root / first['image']}"
            f"; {len(missing):,} of {len(paths):,} pictures are missing. Pictures are looked for below "
            "ingest.image_root; put them back, or run `kedro run --pipeline=mine` on what is there."
        )


def check_hardware(train: TrainingParameters) -> None:
    """Make sure that every process has a GPU of its own, where there are GPUs.

    Raises:
        ConfigurationError: If there are more processes than GPUs, or none where one was asked for.
    """
    processes = train.distributed.processes
    if train.device == "cpu" or (processes == 1 and train.device == "auto"):
        return
    from unime_kedro.learning.hardware import count_gpus

    gpus = count_gpus()
    if processes > gpus and (gpus or train.device == "cuda"):
        raise ConfigurationError(
            f"{train.section}.distributed.processes = {processes}, but this machine has {gpus} GPUs; expected at most "
            f"one process per GPU. Lower it, or set {train.section}.device to cpu."
        )


def make_job(
    training: pl.DataFrame,
    items: pl.DataFrame,
    judge_origin: dict[str, str],
    ingest: IngestParameters,
    demo: DemoParameters,
    train: TrainParameters,
    training_folder: Path,
    output: Path,
) -> tuple[Job, Path, bool]:
    """Write what the training processes read, into a folder named after everything that the weights depend on.

    The same training finds its own checkpoints there; a training that differs in anything finds nothing.

    Returns:
        The job, its folder, and whether it is done already.
    """
    from unime_kedro.evaluation.held_out import held_out_sets
    from unime_kedro.io.mmeb_eval import read_eval_sets
    from unime_kedro.mllm.adapters import fingerprint_of

    root = validation_root(train, ingest, demo)
    if root is not None:
        validation: list[Any] = list(read_eval_sets(root, root / "images"))
    elif (training["split"] == "validation").any():
        validation = held_out_sets(training, items, candidates=train.validation.candidates, seed=train.seed)
    else:
        validation = []
    image_root = resolve(ingest.image_root)
    fingerprint = fingerprint_of(train.model, train.revision)
    identity = training_identity(training, items, validation, train, fingerprint)
    record = data_record(training, judge_origin, ingest, demo, train, fingerprint)
    job = Job(train, identity, output, image_root, image_root if root is None else root / "images", record)
    folder = training_folder / identity[:16]
    done = finished(job, folder)
    if not done:
        write_job(folder, job, training, items, validation)
    return job, folder, done


def training_identity(
    training: pl.DataFrame, items: pl.DataFrame, validation: list[Any], train: TrainingParameters, fingerprint: str
) -> str:
    """Hash everything that the trained weights, and the figures on validation data, depend on.

    Args:
        training: The table ``training`` or ``reranking``.
        items: The items table.
        validation: Validation sets, perhaps none.
        train: The parameters.
        fingerprint: Of the model that is started from.
    """
    import hashlib

    from unime_kedro.learning.run_folder import mentioned_items
    from unime_kedro.mining.lineage import table_digest
    from unime_kedro.mllm.fingerprint import folder_fingerprint

    mentioned = items.join(mentioned_items(training), on="item_id", how="semi").sort("item_id")
    start = resolve(train.resume_from) if train.resume_from else None
    parts = {
        "version": _VERSION,
        "train": train.model_dump(mode="json", exclude=_OPERATION),
        "processes": train.distributed.processes * train.distributed.machines,
        "model": fingerprint,
        "resume_from": folder_fingerprint(start) if start is not None and start.is_dir() else str(start),
        "training": table_digest(training.explode("negative_item_ids", "negative_scores")),
        "items": table_digest(mentioned.select("item_id", "content_key")),
        "validation": [
            table_digest(one.contents, one.queries.select("query_id", "content_id", "candidates").explode("candidates"))
            for one in validation
        ],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def data_record(
    training: pl.DataFrame,
    judge_origin: dict[str, str],
    ingest: IngestParameters,
    demo: DemoParameters,
    train: TrainParameters | RerankParameters,
    fingerprint: str,
) -> dict[str, Any]:
    """Return what the model's card says of base, data and judge."""
    used = training.filter(pl.col("split") == "train")
    counts = used["dataset"].value_counts().sort("dataset")
    own = is_embedded_model(train.model) or is_embedded_corpus(ingest, demo)
    return {
        # of the drawings that model or corpus are made of
        **({"license": "cc-by-sa-4.0"} if own else {}),
        "base": {
            "model": train.model,
            "revision": train.revision,
            "fingerprint": fingerprint,
            "embedded": is_embedded_model(train.model),
        },
        "data": {
            "corpus": "mini-MMEB" if is_embedded_corpus(ingest, demo) else ingest.root,
            "digest": judge_origin.get("corpus"),
            "queries": len(used),
            "negatives": train.negatives,
            "datasets": dict(counts.iter_rows()),
        },
        "judge": {
            "model": judge_origin.get("model"),
            "fingerprint": judge_origin.get("model_fingerprint"),
            "temperature": judge_origin.get("temperature"),
        },
    }


@contextmanager
def failed_batch_kept(folder: Path) -> Iterator[None]:
    """Hand the batch that a training in this block had to stop at to the tracked run, too."""
    from unime_kedro.tracking.live import live_text

    file = folder / FAILED_BATCH
    file.unlink(missing_ok=True)  # of an earlier start
    try:
        yield
    except Exception:
        if file.is_file():
            live_text(file.read_text(encoding="utf-8"), FAILED_BATCH)
        raise


def finished(job: Job, folder: Path) -> bool:
    """Whether the output folder holds the model of this very training, as it was written.

    Args:
        job: The training.
        folder: Its folder, with the fingerprint of the model that it wrote.
    """
    from unime_kedro.learning.export import finish_swap
    from unime_kedro.learning.run_folder import read_finished
    from unime_kedro.mllm.fingerprint import folder_fingerprint

    finish_swap(job.output)  # a kill between the two renames of the last save
    try:
        record = json.loads((job.output / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    written = read_finished(folder)
    return record.get("identity") == job.identity and written is not None and written == folder_fingerprint(job.output)


def model_reference(job: Job, folder: Path) -> dict[str, Any]:
    """Return what says which model was trained; its fingerprint is the one noted when it was written."""
    from unime_kedro.learning.run_folder import read_finished

    root = project_root()
    return {
        "folder": str(job.output.relative_to(root) if job.output.is_relative_to(root) else job.output),
        "fingerprint": read_finished(folder),
        "identity": job.identity,
        "base_model": job.train.model,
    }


def summary(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the metrics of a training from its figures by step."""
    trained = [row for row in history if "loss" in row]
    found: dict[str, float] = {"steps": history[-1]["step"] if history else 0}
    if history and "validation_precision_at_1" in history[0]:
        found["validation_precision_at_1_before"] = history[0]["validation_precision_at_1"]
    if trained:
        found["loss"] = trained[-1]["loss"]
        found["seconds"] = sum(row["seconds"] for row in trained)
        for name in ("queries_per_second", "pairs_per_second", "encodes_saved"):
            found[name] = sum(row[name] * row["seconds"] for row in trained) / found["seconds"]
        found["peak_memory_gb"] = max(row["peak_memory_gb"] for row in trained)
    for row in history:  # the last value of each counts
        found |= {key: value for key, value in row.items() if key.startswith("validation_precision_at_1")}
    return found
