"""Checkpoints are whole or do not count, and only fit the model they are of."""

from __future__ import annotations

import json

import pytest

from unime_kedro.errors import ModelError
from unime_kedro.learning.checkpoints import (
    COMPLETE,
    WEIGHTS,
    facts_of,
    is_complete,
    last_checkpoint,
    load_weights,
    mark_complete,
    save_weights,
)

torch = pytest.importorskip("torch")


def checkpoint(folder, step, model=None):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_weights(model or network(), path / WEIGHTS)
    (path / "optimizer.pt").write_bytes(b"x" * 100)
    mark_complete(path, step)
    return path


def network(hidden=3, frozen=()):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.Linear(hidden, 1))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model


def test_the_last_one_is_that_with_the_most_steps(tmp_path):
    for step in (9, 100, 20):
        checkpoint(tmp_path, step)
    assert last_checkpoint(tmp_path).name == "checkpoint-100"
    assert facts_of(tmp_path / "checkpoint-100")["step"] == 100
    assert last_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["never marked", "a file gone", "a file shorter", "the mark half written"])
def test_an_incomplete_one_is_removed_and_the_one_before_counts(tmp_path, damage):
    checkpoint(tmp_path, 10)
    path = checkpoint(tmp_path, 20)
    if damage == "never marked":
        (path / COMPLETE).unlink()
    elif damage == "a file gone":
        (path / "optimizer.pt").unlink()
    elif damage == "a file shorter":
        (path / "optimizer.pt").write_bytes(b"x" * 99)
    else:
        (path / COMPLETE).write_text('{"step": 20, "fil')
    assert not is_complete(path)
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    assert not path.exists()


def test_weights_come_back_and_frozen_ones_are_not_in_there(tmp_path):
    from safetensors.torch import load_file

    path = checkpoint(tmp_path, 1, network(frozen=("0.weight", "0.bias")))
    assert set(load_file(path / WEIGHTS)) == {"1.weight", "1.bias"}
    other = network(frozen=("0.weight", "0.bias"))
    with torch.no_grad():
        other[1].weight.zero_()
    load_weights(other, path)
    assert torch.equal(other[1].weight, network()[1].weight)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: network(hidden=4), r"0\.weight is \(3, 2\) there, expected \(4, 2\)"),
        (lambda: network(frozen=("1.bias",)), r"its 1\.bias is not trained here"),
        (lambda: torch.nn.Linear(2, 3), r"it has no weight"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path, model, told):
    path = checkpoint(tmp_path, 1)
    with pytest.raises(ModelError, match=told) as caught:
        load_weights(model(), path)
    assert "train.resume_from" in str(caught.value)


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path):
    with pytest.raises(ModelError, match="no complete checkpoint"):
        facts_of(tmp_path)
    (tmp_path / COMPLETE).write_text(json.dumps({"files": {}}))
    with pytest.raises(ModelError, match="no complete checkpoint"):
        facts_of(tmp_path)
