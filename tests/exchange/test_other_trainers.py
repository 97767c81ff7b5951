"""Exports, read by the libraries that they are for.

The packages of ms-swift, FlagEmbedding and Tevatron want other versions of transformers than this project: `make
test-trainers` installs them apart and runs this file there. sentence-transformers and datasets are in the extra `dev`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mined_tables import ITEMS, draw, tables

from unime_kedro.exchange.rows import mined_rows
from unime_kedro.exchange.writing import export


def need(module: str):
    """Import a trainer's module; skip where it is not installed, unless `make test-trainers` says that it must be."""
    if os.environ.get("UNIME_TRAINERS") == "required":
        return importlib.import_module(module)
    return pytest.importorskip(module)


datasets = need("datasets")
BASE = Path(__file__).resolve().parents[2] / "models/tiny-embedder"


def exported(name: str, out: Path, words_alone: bool = False) -> list[Path]:
    """Export to files whose pictures are there."""
    return export(mined_rows(**tables(words_alone), image_root=draw(out.parent)), name, out)[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))


def load(kind: str, file: Path, cache: Path):
    return datasets.load_dataset(kind, data_files=str(file), split="train", cache_dir=str(cache))


def test_datasets_reads_parquet_with_pictures_as_pictures(tmp_path):
    (file,) = exported("sentence-transformers", tmp_path / "x.parquet")
    found = load("parquet", file, tmp_path / "cache")
    assert found.column_names == ["anchor", "positive", "negative_1", "negative_2", "negative_3", "label"]
    anchor = found[0]["anchor"]
    assert anchor["text"] == ITEMS[0][0]
    assert anchor["image"].size == (56, 56)
    assert anchor["image"].getpixel((0, 0)) == (0, 10, 200)  # item 0
    assert found[0]["negative_2"]["image"].getpixel((0, 0)) == (120, 10, 200)  # item 3
    assert found[1]["anchor"] == {"text": ITEMS[4][0], "image": None}
    assert found[0]["label"] == [0.875, 0.25, 0.5, 0.25]


def test_a_sentence_transformers_model_trains_on_pictures_words_and_scores(tmp_path):
    sentence_transformers = need("sentence_transformers")
    losses = need("sentence_transformers.sentence_transformer.losses")
    torch = need("torch")
    model_folder = _our_model(tmp_path / "model")
    (file,) = exported("sentence-transformers", tmp_path / "x.parquet")
    rows = load("parquet", file, tmp_path / "cache")
    model = sentence_transformers.SentenceTransformer(str(model_folder), trust_remote_code=True, device="cpu")
    vectors = np.stack([model.encode(rows[name]) for name in rows.column_names if name != "label"], axis=1)
    similarity = np.einsum("qd,qcd->qc", vectors[:, 0].astype(np.float64), vectors[:, 1:].astype(np.float64))
    student, teacher = similarity, np.array(rows["label"])

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    by_hand = (np.exp(log_softmax(teacher)) * (log_softmax(teacher) - log_softmax(student))).sum(axis=1).mean()
    loss = losses.DistillKLDivLoss(model, similarity_fct=sentence_transformers.util.pairwise_dot_score)
    columns = [model.preprocess(rows[name]) for name in rows.column_names if name != "label"]
    value = loss(columns, torch.tensor(rows["label"]))
    assert value.item() == pytest.approx(by_hand, rel=1e-4)
    value.backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def _our_model(folder: Path) -> Path:
    """Save the embedded embedder as a training does."""
    from unime_kedro.learning.export import save_embedder
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    adapter = load_adapter(ModelSpec(str(BASE), device="cpu", dtype="float32"))
    save_embedder(folder, adapter, base=str(BASE), peft=None, prompt="plain", max_tokens=64, card="", record={})
    return folder


def test_ms_swift_reads_messages_and_pictures(tmp_path):
    swift = need("swift.dataset")
    inputs = need("swift.template.template_inputs")
    (file,) = exported("ms-swift", tmp_path / "x.jsonl")
    found, _ = swift.load_dataset(str(file), load_from_cache_file=False)
    assert len(found) == 3
    row = inputs.TemplateInputs.from_dict(found[0])
    assert [picture["path"] for picture in row.chosen.images] == [str(tmp_path / "q0.png")]
    assert row.chosen.messages == [{"role": "user", "content": "<image>\nWhich colour?"}]
    assert [one.messages[0]["content"] for one in row.positive] == ['red, not "blue"']
    assert [one.images for one in row.negative] == [[str(tmp_path / f"c{i}.png")] for i in (2, 3, 2)]
    assert [one.messages[0]["content"] for one in row.negative] == ["<image>", "<image> a crop", "<image>"]


def test_flag_embedding_reads_words_and_scores(tmp_path):
    finetune = need("FlagEmbedding.abc.finetune.embedder.AbsDataset")
    (file,) = exported("flag-embedding", tmp_path / "x.jsonl", words_alone=True)
    options = SimpleNamespace(
        train_data=[str(file)], cache_path=str(tmp_path / "cache"), max_example_num_per_dataset=100, shuffle_ratio=0.0,
        knowledge_distillation=True, train_group_size=4, query_instruction_for_retrieval=None,
        passage_instruction_for_retrieval=None,
    )  # fmt: skip
    found = finetune.AbsEmbedderTrainDataset(options, tokenizer=None)
    assert len(found) == 3
    query, passages, scores = found[1]
    assert query == ITEMS[4][0]
    assert dict(zip(passages, scores, strict=True)) == {
        "słoń 🐘": 0.625, 'red, not "blue"': 0.125, "query of nothing": 0.0, "query of a fallback": 0.75,
    }  # fmt: skip


def test_tevatron_reads_passages(tmp_path):
    tevatron = need("tevatron.datasets.preprocessor")
    (file,) = exported("tevatron-text", tmp_path / "x.jsonl", words_alone=True)
    found = load("json", file, tmp_path / "cache")
    letters = SimpleNamespace(encode=lambda text, **_: [ord(letter) for letter in text])
    row = tevatron.TrainPreProcessor(letters)(found[1])
    assert "".join(map(chr, row["query"])) == ITEMS[4][0]
    assert ["".join(map(chr, one)) for one in row["positives"]] == ["słoń 🐘"]
    assert len(row["negatives"]) == 3


def test_tevatrons_documents_are_found_by_their_ids(tmp_path):
    train, corpus = (load("json", file, tmp_path / "cache") for file in exported("tevatron", tmp_path / "folder"))
    documents = {row["docid"]: row for row in corpus}
    row = train[0]
    assert row["query_image"] == str(tmp_path / "q0.png")
    assert [documents[i]["image"] for i in row["negative_document_ids"]] == [
        str(tmp_path / f"c{i}.png") for i in (2, 3, 2)
    ]
    assert [documents[i]["text"] for i in row["positive_document_ids"]] == ['red, not "blue"']
