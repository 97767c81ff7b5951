"""Adapters: positions, features and errors against transformers' own code."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from unime_kedro.errors import ModelError
from unime_kedro.mllm.adapters import FAMILIES, load_adapter
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.fingerprint import folder_fingerprint
from unime_kedro.mllm.images import read_image


def test_positions_equal_the_models_own(adapter, pictures):
    import torch

    for picture in [*pictures, None]:
        image = read_image(adapter, picture) if picture is not None else None
        piece = adapter.encode("some words <|image_1|> and more" if picture is not None else "words alone", image)
        ids = torch.from_numpy(piece.ids)[None]
        if image is None:
            wanted = torch.arange(len(piece.ids)).expand(3, 1, -1)
        else:
            wanted, _ = adapter.model.model.get_rope_index(
                ids,
                mm_token_type_ids=(ids == adapter.image_id).int(),
                image_grid_thw=torch.from_numpy(image.grid)[None],
            )
        np.testing.assert_array_equal(piece.positions, wanted[:, 0].numpy())
        assert piece.span == int(wanted.max()) + 1
        assert piece.n_image_tokens == int((ids == adapter.image_id).sum())


def test_transparent_pictures_are_laid_on_white(adapter, tmp_path):
    clear, white = tmp_path / "clear.png", tmp_path / "white.png"
    Image.new("RGBA", (112, 112), (200, 0, 0, 0)).save(clear)
    Image.new("RGB", (112, 112), (255, 255, 255)).save(white)
    np.testing.assert_array_equal(read_image(adapter, clear).pixels, read_image(adapter, white).pixels)


def test_unknown_architecture_lists_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(ModelError) as error:
        load_adapter(ModelSpec(str(tmp_path)))
    assert "BertModel" in str(error.value)
    assert all(name in str(error.value) for name in FAMILIES)


def test_missing_folder_and_non_model_folder_say_so(tmp_path):
    with pytest.raises(ModelError, match="no model folder"):
        load_adapter(ModelSpec(str(tmp_path / "nothing")))
    with pytest.raises(ModelError, match=r"config\.json"):
        load_adapter(ModelSpec(str(tmp_path)))


def test_fingerprint_changes_with_any_byte_of_the_model_but_not_with_its_card(model_folder, tmp_path):
    import shutil

    copy = shutil.copytree(model_folder, tmp_path / "copy")
    before = folder_fingerprint(copy)
    assert before == folder_fingerprint(model_folder)
    (copy / "README.md").write_text("a card")
    assert folder_fingerprint(copy) == before
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    assert folder_fingerprint(copy) != before


def test_yes_and_no_must_be_single_tokens(adapter):
    with pytest.raises(ModelError, match="Affirmative"):
        adapter.answer_weights(("Affirmative", "No"))
