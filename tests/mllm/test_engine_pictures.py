"""What an engine with an image processor of its own gets."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.mllm.engine_pictures import EnginePictures
from unime_kedro.mllm.images import open_picture, read_image
from unime_kedro.mllm.vllm_engine import engine_prompt


def test_a_resized_picture_is_what_the_image_processor_makes_and_it_changes_nothing_more(adapter, pictures):
    for file in pictures:
        processed = read_image(adapter, file)
        resized = adapter.resized_picture(processed)
        _, rows, columns = processed.grid
        patch = adapter.image_processor.patch_size
        assert resized.size == (columns * patch, rows * patch)
        # the processor's own way to resize, and nothing else of ours
        direct = open_picture(file).resize(resized.size, Image.Resampling(adapter.image_processor.resample))
        np.testing.assert_array_equal(np.asarray(resized), np.asarray(direct))
        again = adapter.process_image(resized)
        np.testing.assert_array_equal(again.pixels, processed.pixels)
        np.testing.assert_array_equal(again.grid, processed.grid)


def test_families_of_tiles_get_the_picture_as_it_is(backbone, pictures):
    if not backbone.adapter.reads_tiles:
        pytest.skip("a family of patches")
    assert backbone.adapter.resized_picture(read_image(backbone.adapter, pictures[0])) is None
    found = EnginePictures(backbone.adapter, 1.0)[pictures[7]]
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(open_picture(pictures[7])))


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_are_read_once_and_known_by_their_bytes(adapter, pictures, workers, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(pictures[0].read_bytes())
    store = EnginePictures(adapter, 1.0, workers)
    files = [pictures[0], pictures[1], copy, pictures[0]]
    store.expect(files)
    keys = [store[file].key for file in files]
    assert keys[0] == keys[2] == keys[3] == hashlib.blake2b(copy.read_bytes(), digest_size=16).hexdigest()
    assert keys[1] != keys[0]
    assert store.prepared == 3
    assert store.grid(copy)[1] == read_image(adapter, copy).n_tokens


def test_beyond_the_budget_they_are_read_again(adapter, pictures):
    store = EnginePictures(adapter, 0.0)
    first = np.asarray(store[pictures[0]].image)
    store[pictures[1]]
    np.testing.assert_array_equal(np.asarray(store[pictures[0]].image), first)
    assert store.prepared == 3
    store.grid(pictures[1])  # shapes are always kept
    assert store.prepared == 3


def test_a_missing_picture_is_named(adapter, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        EnginePictures(adapter, 1.0).grid(tmp_path / "gone.png")


def test_an_engines_prompt_has_one_image_token_per_picture(adapter, pictures):
    from unime_kedro.mllm.pieces import joined

    files = [pictures[0], None, pictures[7]]
    texts = ["<|image_1|> one", " two", " three <|image_1|>"]
    pieces = [adapter.encode(t, read_image(adapter, f) if f else None) for t, f in zip(texts, files, strict=True)]
    found = engine_prompt(joined(pieces), files, adapter.image_id)
    block = "<|vision_start|><|image_pad|><|vision_end|>"
    wanted = adapter.tokenizer("".join(texts).replace("<|image_1|>", block), add_special_tokens=False)["input_ids"]
    assert found.ids == wanted
    assert found.images == (pictures[0], pictures[7])
    assert found.length == len(wanted) - 2 + pieces[0].n_image_tokens + pieces[2].n_image_tokens
