"""Write mini-MMEB to disk in exactly MMEB's layout, with the ground truth beside it.

::

    <root>/train/<data set>/original-00000-of-00001.parquet   qry, qry_image_path, pos_text, pos_image_path
    <root>/train/images/<data set>/Train/*.png                 paths start with images/
    <root>/eval/<data set>/test-00000-of-00001.parquet         qry_text, qry_img_path, tgt_text[], tgt_img_path[]
    <root>/eval/images/<data set>/*.png                        paths start with the data set
    <root>/validation/...                                      as eval, to choose by: in-distribution data sets alone
    <root>/truth/<train|eval|validation>/{contents,wants}.parquet   truth ids of contents, and wanted by queries
    <root>/captions/EmojiCaptions, <root>/compositional/EmojiCrepe   see ``formats``

The same seed gives the same bytes. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.minimmeb.formats import COMPOSITIONAL, write_captions, write_compositional
from unime_kedro.minimmeb.pairs import (
    largest_number_of_candidates,
    largest_number_of_queries,
    write_eval,
    write_train,
)
from unime_kedro.minimmeb.scenes import VALIDATION
from unime_kedro.minimmeb.tasks import TASKS, TRAIN_TASKS
from unime_kedro.minimmeb.writer import SplitWriter

MANIFEST = "manifest.json"

#: raise when the same parameters give other bytes than before
VERSION = 3


def _check_sizes(
    train_pairs: dict[str, int], eval_queries: dict[str, int], validation_queries: dict[str, int], eval_candidates: int
) -> None:
    """Make sure that what is asked for can be made."""
    for key, sizes, known, split, what in (
        ("train_pairs", train_pairs, TRAIN_TASKS, "train", "training pairs"),
        ("eval_queries", eval_queries, TASKS, "eval", "evaluation queries"),
        ("validation_queries", validation_queries, TRAIN_TASKS, VALIDATION, "validation queries"),
    ):
        for name, n in sizes.items():
            if n and name not in known:
                reason = f"is out of distribution and has no {what}" if name in TASKS else "is unknown"
                raise ConfigurationError(f"demo.{key}: {name} {reason}; expected only {', '.join(known)}.")
            most = largest_number_of_queries(TASKS[name], split) if n else None
            if most is not None and n > most:
                raise ConfigurationError(f"demo.{key}: {name} = {n:,}: expected at most {most:,}, as many as it has.")
    for key, sizes in (("eval_queries", eval_queries), ("validation_queries", validation_queries)):
        for name in (name for name, n in sizes.items() if n and TASKS[name].ask != "real"):
            largest = largest_number_of_candidates(TASKS[name])
            if largest is not None and eval_candidates > largest:
                raise ConfigurationError(
                    f"demo.eval_candidates = {eval_candidates}: expected at most {largest}, as many as there are "
                    f"different answers in {name}. Ask for fewer, or set demo.{key} of this data set to 0."
                )


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file() and p != root / MANIFEST)


def folder_digest(root: Path) -> str:
    """Return one hash over the names and bytes of all files below ``root``, its manifest left out."""
    digest = hashlib.sha256()
    for file in _files(root):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read_manifest(root: Path) -> dict[str, Any]:
    """Return what :func:`write_corpus` said of the corpus at ``root``; empty when there is none."""
    try:
        return dict(json.loads((root / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _refuse_foreign_files(root: Path) -> None:
    """Make sure that replacing ``root`` deletes nothing that mini-MMEB would not write itself."""
    names = "|".join(map(re.escape, TASKS))
    ours = re.compile(
        rf"train/({names})/original-00000-of-00001\.parquet|train/images/({names})/Train/\w+\.png|"
        rf"(eval|validation)/({names})/test-00000-of-00001\.parquet|(eval|validation)/images/({names})/\w+\.png|"
        r"truth/(train|eval|validation)/(contents|wants)\.parquet|captions/EmojiCaptions/(annotations\.csv|images/\w+\.png)|"
        rf"compositional/EmojiCrepe/(({'|'.join(COMPOSITIONAL)})\.json|images/\w+\.png)"
    )
    foreign = [f for f in (p.relative_to(root).as_posix() for p in _files(root)) if not ours.fullmatch(f)]
    if foreign:
        raise DataError(
            f"{root} holds {len(foreign)} files that are not mini-MMEB's, for example {foreign[0]}; mini-MMEB has to "
            "be written there again and would delete them. Move them elsewhere and set ingest.root and "
            "ingest.image_root, or set demo.root to another folder."
        )


def write_corpus(
    root: Path,
    *,
    seed: int,
    train_pairs: dict[str, int],
    eval_queries: dict[str, int],
    eval_candidates: int,
    validation_queries: dict[str, int] | None = None,
    caption_images: int = 0,
    compositional_entries: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write the whole corpus; an older one at the same place is replaced once the new one is complete.

    Args:
        root: Folder to make.
        seed: Seed of everything; equal seeds and sizes give equal bytes.
        train_pairs: Data set -> training pairs.
        eval_queries: Data set -> evaluation queries.
        eval_candidates: Candidates per evaluation or validation query, the right one included; easy-VQA has at most 20.
        validation_queries: Data set with training pairs -> validation queries. What is out of distribution has none:
            who chooses by it has seen it.
        caption_images: Pictures with five captions each.
        compositional_entries: Entries of each of the seven compositional files.
        advance: Called once per pair or query written.

    Returns:
        The manifest (also in ``manifest.json``): version, data sets with their sizes, pictures, digest of all files.

    Raises:
        ConfigurationError: If a data set is unknown, or has no training pairs where it must have some, or not as many
            different queries or candidates as asked for; nothing is written then.
        DataError: If ``root`` holds files that mini-MMEB does not write; nothing is deleted then.
    """
    validation_queries = validation_queries or {}
    _check_sizes(train_pairs, eval_queries, validation_queries, eval_candidates)
    partial = root.with_name(root.name + ".partial")
    for folder in (root, partial):
        _refuse_foreign_files(folder)
    shutil.rmtree(partial, ignore_errors=True)
    train, evaluation, validation = (SplitWriter(partial / part) for part in ("train", "eval", "validation"))
    for name, task in TASKS.items():  # in one order, whatever the order of the parameters
        write_train(train, task, seed, train_pairs.get(name, 0), advance)
        write_eval(evaluation, task, seed, eval_queries.get(name, 0), eval_candidates, advance)
        write_eval(validation, task, seed, validation_queries.get(name, 0), eval_candidates, advance, "validation")
    train.write_truth(partial / "truth" / "train")
    evaluation.write_truth(partial / "truth" / "eval")
    if any(validation_queries.values()):
        validation.write_truth(partial / "truth" / "validation")
    pictures = train.pictures + evaluation.pictures + validation.pictures
    if caption_images:
        pictures += write_captions(partial / "captions" / "EmojiCaptions", seed, caption_images)
    if compositional_entries:
        pictures += write_compositional(partial / "compositional" / "EmojiCrepe", seed, compositional_entries)
    manifest = {
        "version": VERSION,
        "seed": seed,
        "train_pairs": dict(sorted(train_pairs.items())),
        "eval_queries": dict(sorted(eval_queries.items())),
        "validation_queries": dict(sorted(validation_queries.items())),
        "eval_candidates": eval_candidates,
        # easy-VQA has no more answers
        "eval_candidates_of": {
            name: min(eval_candidates, largest_number_of_candidates(task) or eval_candidates)
            for name, task in TASKS.items()
            if eval_queries.get(name)
        },
        "caption_images": caption_images,
        "compositional_entries": compositional_entries,
        "pictures": pictures,
        "digest": folder_digest(partial),
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(root)
    return manifest
