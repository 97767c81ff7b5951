"""A Croissant description of a mined data set (https://docs.mlcommons.org/croissant/docs/croissant-spec.html, 1.0)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unime_kedro.audit.record import RunRecord

FILE = "croissant.json"
#: the context that the specification gives, word for word as a consumer expects it
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
#: tables of a mined data set, and what their rows are
TABLES = {
    "negatives": "one mined negative of a query: its place, the judge's score and where it comes from",
    "queries": "one query: its data set, meta-task, and the items that it and its right target are",
    "items": "one distinct content: words and the path of its picture below the image root",
}
_COLUMNS = {
    "query_id": "number of the query",
    "slot": "place among the query's negatives, from 0",
    "item_id": "number of the item",
    "score": "the judge's score in [0, 1]: probability of Yes against No",
    "origin": "sampled, duplicate (of another slot) or fallback (drawn at random, score 1)",
    "dataset": "data set of the query",
    "meta_task": "classification, vqa, retrieval or visual_grounding",
    "positive_item_id": "item that is the right target",
    "text": "words; <|image_1|> stands where the picture goes",
    "image": "path of the picture below the image root, empty for none",
    "content_key": "hash of words and picture",
    "modality": "text, image or image_text",
}
_CITATION = (
    "@inproceedings{gu2026unimev2, title={UniME-V2: MLLM-as-a-Judge for Universal Multimodal Embedding Learning}, "
    "author={Gu, Tiancheng and others}, booktitle={AAAI}, year={2026}}"
)
_SYNTHETIC = " Pictures are synthetic: scenes composed of OpenMoji drawings (CC BY-SA 4.0), and easy-VQA's (MIT)."
_TINY = (
    " Both models that mined and judged have about two million parameters and were trained on synthetic scenes. Scores "
    "say nothing of real models."
)

_UNKNOWN = "not stated: the data that were mined are somebody's own; ask who handed this in"


def describe(record: RunRecord, files: Mapping[str, Path], own_data: bool, tiny: bool) -> dict[str, Any] | None:
    """Return the description of the mined data set that a package holds, None if it holds none.

    Args:
        record: The run that mined it.
        files: Path in the package -> file.
        own_data: Whether something else than the embedded corpus was mined, whose licence nobody here knows.
        tiny: Whether the models that come with the project mined and judged.
    """
    found = {name: path for name in TABLES for path in files if path.endswith(f"/{name}.parquet") and _main(path)}
    if "negatives" not in found:
        return None
    mined = next((path for path in files if path.endswith("/mined.json") and _main(path)), None)
    made = datetime.fromtimestamp((record.end or record.start) / 1000, UTC).strftime("%Y-%m-%d")
    objects = [_file_object(name, path, files[path], "application/x-parquet") for name, path in found.items()]
    sets = [_record_set(name, files[path]) for name, path in found.items()]
    if mined is not None:
        objects.append(_file_object("mined", mined, files[mined], "application/json"))
        sets.append(_mined_rows())
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": "mined-hard-negatives",
        "description": "Hard negatives of a universal multimodal embedder, mined and scored by a multimodal LLM as the "
        f"judge (UniME-V2), by run {record.run_id} of unime-kedro.",
        "license": _UNKNOWN if own_data else "https://creativecommons.org/licenses/by-sa/4.0/",
        "url": "https://arxiv.org/abs/2510.13515",
        "citeAs": _CITATION,
        "version": f"0.1.0+{record.run_id[:8]}",
        "datePublished": made,
        "creator": {"@type": "sc:Organization", "name": "unime-kedro"},
        "isLiveDataset": False,
        "rai:dataCollection": "Nearest candidates of each query over the whole corpus, judged one by one.",
        "rai:dataLimitations": "Scores of a model, not of people."
        + ("" if own_data else _SYNTHETIC)
        + (_TINY if tiny else ""),
        "distribution": objects,
        "recordSet": sets,
    }


def _main(path: str) -> bool:
    """Whether a file is of the mined data themselves, and no copy that an ablation's arm has of its own."""
    return "/ablations/" not in path and "07_model_output" not in path


def _file_object(name: str, path: str, file: Path, encoding: str) -> dict[str, Any]:
    content = file.read_bytes()
    return {
        "@type": "cr:FileObject",
        "@id": f"{name}-file",
        "name": path.rpartition("/")[2],
        "description": TABLES.get(name, "the same negatives as rows of the authors' release"),
        "contentUrl": path,
        "contentSize": f"{len(content)} B",
        "encodingFormat": encoding,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _record_set(name: str, file: Path) -> dict[str, Any]:
    import polars as pl

    schema = pl.read_parquet_schema(file)
    fields = [_field(name, column, _type(kind), {"column": column}) for column, kind in schema.items()]
    keys = {"negatives": ["query_id", "slot"], "queries": ["query_id"], "items": ["item_id"]}[name]
    key = [{"@id": f"{name}/{column}"} for column in keys]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": TABLES[name],
        "key": key,
        "field": fields,
    }


def _field(table: str, column: str, kind: str, extract: dict[str, str], repeated: bool = False) -> dict[str, Any]:
    found = {
        "@type": "cr:Field",
        "@id": f"{table}/{column}",
        "name": column,
        "description": _COLUMNS.get(column, column.replace("_", " ")),
        "dataType": kind,
        "source": {"fileObject": {"@id": f"{table}-file"}, "extract": extract},
    }
    return found | ({"repeated": True} if repeated else {})


def _type(kind: Any) -> str:
    if kind.is_integer():
        return "sc:Integer"
    return "sc:Float" if kind.is_float() else "sc:Text"


def _mined_rows() -> dict[str, Any]:
    """Describe what of the release's rows is one value; lists of pairs have no Croissant type."""
    kinds = {"query_text": "sc:Text", "query_image": "sc:Text", "pos_text": "sc:Text", "pos_image": "sc:Text"}
    kinds["query_pos_scores"] = "sc:Float"
    fields = [_field("mined", name, kind, {"jsonPath": f"$[*].{name}"}) for name, kind in kinds.items()]
    text = "one query as the authors' release has it; hard_negatives and hard_negatives_scores are lists beside these"
    return {"@type": "cr:RecordSet", "@id": "mined", "name": "mined", "description": text, "field": fields}


def as_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a description as a file."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8")
