"""Gradients in chunks equal those of the whole batch: with dropout, pictures and words mixed, and two processes."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest

torch = pytest.importorskip("torch")


def info_nce(vectors):
    """In-batch contrastive loss of rows 0..n/2-1 against rows n/2..n-1."""
    n = len(vectors) // 2
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    return torch.nn.functional.cross_entropy(unit[:n] @ unit[n:].T / 0.1, torch.arange(n))


def network(dropout: float):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(16, 4)]
    return torch.nn.Sequential(*layers).double().train()


def gradients(model) -> dict[str, np.ndarray]:
    return {name: p.grad.detach().numpy().copy() for name, p in model.named_parameters() if p.grad is not None}


def relative(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    scale = max(np.abs(value).max() for value in b.values())
    return max(float(np.abs(a[name] - b[name]).max()) for name in a) / scale


@pytest.mark.parametrize("sizes", [[24], [12, 12], [5, 5, 5, 5, 4], [1] * 24, [23, 1]])
def test_chunks_of_any_size_give_the_gradients_of_the_whole_batch(sizes):
    from unime_kedro.learning.gradient_cache import cached_backward

    batch = torch.randn(24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain, cached = network(0.0), network(0.0)
    expected = info_nce(plain(batch))
    expected.backward()
    value = cached_backward(cached, batch.split(sizes), info_nce)
    assert not value.requires_grad
    assert float(value) == pytest.approx(float(expected.detach()), abs=1e-12)
    assert relative(gradients(cached), gradients(plain)) < 1e-12


def test_dropout_is_the_same_in_both_passes_and_the_random_numbers_go_on_once():
    from unime_kedro.learning.gradient_cache import cached_backward

    batch = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain, cached = network(0.5), network(0.5)
    # the same draws, chunk after chunk, in one graph
    torch.manual_seed(7)
    expected = info_nce(torch.cat([plain(part) for part in batch.split(4)]))
    after = torch.rand(3)
    expected.backward()
    torch.manual_seed(7)
    value = cached_backward(cached, batch.split(4), info_nce)
    assert torch.equal(torch.rand(3), after)
    assert float(value) == pytest.approx(float(expected.detach()), abs=1e-12)
    assert relative(gradients(cached), gradients(plain)) < 1e-12


def test_gradients_add_up_and_a_losss_own_parameters_get_theirs():
    from unime_kedro.learning.gradient_cache import cached_backward

    batch = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    model, scale = network(0.0), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def scaled(vectors):
        return scale * info_nce(vectors)

    value = cached_backward(model, batch.split(3), scaled)
    once = gradients(model)
    assert float(scale.grad) == pytest.approx(float(value) / 2)
    cached_backward(model, batch.split(3), scaled)
    assert relative({k: v / 2 for k, v in gradients(model).items()}, once) < 1e-12


def test_no_chunks_is_an_error():
    from unime_kedro.learning.gradient_cache import cached_backward

    with pytest.raises(ValueError, match="no chunks"):
        cached_backward(network(0.0), [], info_nce)


def test_qwen2_vl_with_mixed_rows_and_dropout():
    from unime_kedro.learning.gradient_cache import cached_backward
    from unime_kedro.learning.tiny.alignment import Aligner
    from unime_kedro.learning.tiny.batches import Encoder, TileBank
    from unime_kedro.learning.tiny.embedder import _pairs, embed_sides
    from unime_kedro.learning.tiny.model import new_model
    from unime_kedro.learning.tiny.tokenizer import train_tokenizer

    encoder = Encoder(train_tokenizer(), TileBank(0))
    queries, targets = _pairs(np.random.default_rng(3), 14, "pretrain")
    sides = queries + targets
    assert len({side.picture is None for side in sides[:5]}) == 2  # words and pictures in one chunk

    def run(sizes: list[int] | None) -> tuple[float, dict[str, np.ndarray]]:
        model = new_model(encoder.tokenizer, hidden=64, layers=2, seed=1).train()
        model.config.text_config.attention_dropout = 0.2
        for layer in model.model.language_model.layers:
            layer.self_attn.attention_dropout = 0.2
        aligner = Aligner(model, encoder)

        def encode(rows: list[int]):
            # every row draws its pictures by itself, whatever chunk it is in
            vectors = [
                embed_sides(model, encoder, aligner, [sides[row]], np.random.default_rng(row))[0] for row in rows
            ]
            return torch.cat(vectors)

        chunks = [list(part) for part in np.split(np.arange(28), np.cumsum(sizes or [28])[:-1])]
        torch.manual_seed(5)
        if sizes is None:
            loss = info_nce(torch.cat([encode(part) for part in chunks]))
            loss.backward()
            return float(loss.detach()), gradients(model)
        return float(cached_backward(encode, chunks, info_nce)), gradients(model)

    expected, wanted = run(None)
    for sizes in ([4] * 7, [9, 9, 9, 1]):
        value, found = run(sizes)
        assert value == pytest.approx(expected, abs=1e-6)
        assert relative(found, wanted) < 1e-5


def test_lora_with_dropout_on_mixed_rows(request, pictures):
    pytest.importorskip("peft")
    from unime_kedro.learning.gradient_cache import cached_backward
    from unime_kedro.learning.trainable import make_trainable
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.images import read_image

    adapter = load_adapter(ModelSpec(str(request.config.rootpath / "models/tiny-embedder"), device="cpu"))
    report = make_trainable(
        adapter, tuning="lora", rank=4, alpha=16, dropout=0.1, targets=["q_proj", "v_proj", "down_proj", "qkv"], seed=3
    )
    assert report.trainable
    with torch.no_grad():  # a second matrix of zero would let no gradient through to the first
        for name, p in adapter.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.05, generator=torch.Generator().manual_seed(p.numel()))
    adapter.model.train()
    images = [read_image(adapter, picture) for picture in pictures]
    words = ["a dog", "the pie and the camera", "an axe", "words", "two ducks", "a saw", "what is it?", "the crown"]
    # words alone, pictures alone and both, in turn: every chunk is mixed
    rows = [
        ("<|image_1|>" if i % 3 == 1 else f"<|image_1|>\n{w}", images[i]) if i % 3 else (w, None)
        for i, w in enumerate(words)
    ]

    def encode(chunk):
        vectors = []
        for text, image in chunk:  # row by row: the same random numbers for a row, whatever chunk it is in
            piece = adapter.encode(text, image)
            features = None if image is None else adapter.image_features([image])[0]
            inputs = adapter.embed_tokens(torch.from_numpy(piece.ids)[None], features)
            vectors.append(adapter.decode(inputs, torch.from_numpy(piece.positions)[:, None], None, None)[0, -1])
        return torch.stack(vectors)

    def run(sizes: list[int] | None, seed: int) -> tuple[float, dict[str, np.ndarray]]:
        adapter.model.zero_grad()
        torch.manual_seed(seed)
        if sizes is None:
            loss = info_nce(encode(rows))
            loss.backward()
            return float(loss.detach()), gradients(adapter.model)
        ends = np.cumsum(sizes)
        chunks = [rows[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        return float(cached_backward(encode, chunks, info_nce)), gradients(adapter.model)

    expected, wanted = run(None, 5)
    assert len(wanted) == 2 * len(report.lora_modules)
    assert all("lora_" in name and np.abs(value).max() > 0 for name, value in wanted.items())
    for sizes in ([2, 2, 2, 2], [5, 3], [1] * 8):
        value, found = run(sizes, 5)
        assert value == pytest.approx(expected, abs=1e-6)
        assert relative(found, wanted) < 1e-5
    # dropout does something here: other random numbers give other gradients
    assert relative(run([5, 3], 6)[1], wanted) > 1e-2


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _one_of_two(rank: int, port: int, folder: str) -> None:
    """Run half of the batch in one of two processes; the loss sees all embeddings, gathered."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from unime_kedro.learning.gradient_cache import cached_backward

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = DistributedDataParallel(network(0.0))
    batch = torch.randn(24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # queries 0..11 and targets 12..23: each process has half of both
    mine = torch.cat([batch[6 * rank : 6 * rank + 6], batch[12 + 6 * rank : 18 + 6 * rank]])

    def loss(vectors):
        gathered = [torch.empty_like(vectors) for _ in range(2)]
        dist.all_gather(gathered, vectors.detach())
        gathered[rank] = vectors
        queries, targets = zip(*(part.split(6) for part in gathered), strict=True)
        # DDP takes the mean over processes, each of which has the gradient of its own rows alone
        return 2 * info_nce(torch.cat([*queries, *targets]))

    with model.no_sync():  # gradients are exchanged once, after the last chunk, as the trainer does
        cached_backward(model, mine.split(5), loss)
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= 2
    np.savez(f"{folder}/{rank}.npz", **gradients(model.module))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    import torch.multiprocessing as mp

    mp.start_processes(_one_of_two, args=(_free_port(), str(tmp_path)), nprocs=2, start_method="spawn")
    batch = torch.randn(24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain = network(0.0)
    info_nce(plain(batch)).backward()
    for rank in range(2):
        assert relative(dict(np.load(tmp_path / f"{rank}.npz")), gradients(plain)) < 1e-10
