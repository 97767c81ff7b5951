"""What a training is given and leaves behind, in one folder.

=============================  =====================================================================================
file                           content
=============================  =====================================================================================
``job.json``                   what is trained (embedder, reranker), parameters, folders, and the model card's facts
``training.parquet``           the table ``training`` or ``reranking``
``contents.parquet``           item_id, text, image of every item in it
``validation_*.parquet``       contents and queries of the validation sets, if any
``events.jsonl``               figures by step (see :mod:`.events`)
``checkpoint-<steps>``         weights, optimizer, schedule, random numbers
``finished.json``              fingerprint of the model, when it is written
``failed_batch.json``          the batch that the training had to stop at, if any
``worker.log``, ``errors/``    what the processes said
=============================  =====================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from unime_kedro.atomic import atomic_write, save_parquet
from unime_kedro.errors import DataError
from unime_kedro.evaluation.embedders import EvalTables
from unime_kedro.parameters import RerankParameters, TrainParameters

#: a batch that could not be trained on: step, reason, query ids
FAILED_BATCH = "failed_batch.json"
_JOB, _FINISHED = "job.json", "finished.json"
_TRAINING, _CONTENTS = "training.parquet", "contents.parquet"
_VALIDATION_CONTENTS, _VALIDATION_QUERIES = "validation_contents.parquet", "validation_queries.parquet"


class ValidationSet(NamedTuple):
    """One data set to validate on; as :class:`unime_kedro.io.mmeb_eval.EvalSet`."""

    dataset: str
    contents: pl.DataFrame
    queries: pl.DataFrame


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        train: The parameters.
        identity: Hash of everything that the trained weights depend on.
        output: Folder that receives the model.
        image_root: Folder that the items' image paths are relative to.
        validation_root: Folder that the validation sets' image paths are relative to.
        record: What else the model's card says.
    """

    train: TrainParameters | RerankParameters
    identity: str
    output: Path
    image_root: Path
    validation_root: Path
    record: dict[str, Any]

    @property
    def kind(self) -> Literal["embedder", "reranker"]:
        """What is trained."""
        return "embedder" if isinstance(self.train, TrainParameters) else "reranker"


def write_job(
    folder: Path, job: Job, training: pl.DataFrame, items: pl.DataFrame, validation: Sequence[EvalTables] = ()
) -> None:
    """Write what a training needs; ``job.json`` last.

    Args:
        folder: Folder of the run.
        job: Parameters and folders.
        training: The table ``training`` or ``reranking``.
        items: item_id, text, image; those that ``training`` mentions are written.
        validation: Validation sets, perhaps none.
    """
    contents = items.join(mentioned_items(training), on="item_id", how="semi")
    save_parquet(training, folder / _TRAINING)
    save_parquet(contents.select("item_id", "text", "image").sort("item_id"), folder / _CONTENTS)
    for file, part in ((_VALIDATION_CONTENTS, "contents"), (_VALIDATION_QUERIES, "queries")):
        (folder / file).unlink(missing_ok=True)
        tables = [getattr(one, part).with_columns(dataset=pl.lit(one.dataset)) for one in validation]
        if tables:
            save_parquet(pl.concat(tables), folder / file)
    values = {"kind": job.kind, **asdict(job), "train": job.train.model_dump(mode="json")}
    with atomic_write(folder / _JOB) as temporary:
        temporary.write_text(json.dumps(values, indent=1, default=str) + "\n", encoding="utf-8")


def mentioned_items(training: pl.DataFrame) -> pl.DataFrame:
    """Return the item_id of every item that a training table mentions, each once."""
    columns = [training["item_id"], training["positive_item_id"], training["negative_item_ids"].explode()]
    return pl.concat([column.alias("item_id") for column in columns]).drop_nulls().unique().sort().to_frame()


def write_finished(folder: Path, fingerprint: str) -> None:
    """Note that a training has written its model, and which it was."""
    with atomic_write(folder / _FINISHED) as temporary:
        temporary.write_text(json.dumps({"fingerprint": fingerprint}) + "\n", encoding="utf-8")


def read_finished(folder: Path) -> str | None:
    """Return the fingerprint of the model that a training has written, None if it has not."""
    try:
        return str(json.loads((folder / _FINISHED).read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError):
        return None


def read_job(folder: Path) -> Job:
    """Return what :func:`write_job` wrote of a training, without its tables.

    Raises:
        DataError: If the folder is not that of a training.
    """
    try:
        values = json.loads((folder / _JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / _JOB} cannot be read: {error}. Expected the folder of a training, "
            "<data root>/06_models/training/<hash>; `kedro run --pipeline=train` (or rerank) makes it."
        ) from error
    paths = {key: Path(values[key]) for key in ("output", "image_root", "validation_root")}
    parameters = RerankParameters if values.get("kind") == "reranker" else TrainParameters
    train = parameters.model_validate(values["train"])
    return Job(train=train, identity=values["identity"], record=values["record"], **paths)


def read_tables(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, list[ValidationSet]]:
    """Return the training table, the contents and the validation sets of a training."""
    training, contents = pl.read_parquet(folder / _TRAINING), pl.read_parquet(folder / _CONTENTS)
    if not (folder / _VALIDATION_QUERIES).is_file():
        return training, contents, []
    parts = pl.read_parquet(folder / _VALIDATION_CONTENTS), pl.read_parquet(folder / _VALIDATION_QUERIES)
    names = parts[1]["dataset"].unique().sort()
    sets = [
        ValidationSet(name, *(p.filter(pl.col("dataset") == name).drop("dataset") for p in parts)) for name in names
    ]
    return training, contents, sets
