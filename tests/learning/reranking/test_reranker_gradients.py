"""Messages hold every text, answers alone are learned, and gradients are those of one message at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reranking_jobs as jobs

torch = pytest.importorskip("torch")

QUERIES = 6


class Parts:
    """The tables as objects, and a model that is loaded anew whenever it is asked for."""

    def __init__(self, model: Path, pictures: list[Path]) -> None:
        from unime_kedro.learning.reranking.rows import RerankingRows
        from unime_kedro.mllm.content import Content

        table, items = jobs.tables(pictures)
        root = pictures[0].parent
        self.model, self.rows = str(model), RerankingRows.from_table(table, "train")
        self.contents = {i: Content(text, root / image if image else None) for i, text, image in items.iter_rows()}

    def load(self, tuning: str = "full"):
        from unime_kedro.learning.trainable import make_trainable
        from unime_kedro.mllm.adapters import load_adapter
        from unime_kedro.mllm.content import ModelSpec

        adapter = load_adapter(ModelSpec(self.model, device="cpu", dtype="float32"))
        targets = ["q_proj", "down_proj"]
        report = make_trainable(adapter, tuning=tuning, rank=4, dropout=0.0, targets=targets, seed=3, head=True)
        if report.peft is not None:  # the second matrices start at zero, and with them the first ones' gradients
            generator = torch.Generator().manual_seed(4)
            for name, parameter in adapter.model.named_parameters():
                if "lora_B" in name:
                    parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        return adapter

    def collator(self, adapter, **changes):
        from unime_kedro.learning.reranking.batches import Collator, Pictures
        from unime_kedro.learning.reranking.prompts import MessageEncoder

        options = {"listwise": True, "chunk": 100, "seed": 1, "fewest": 3} | changes
        encoder = MessageEncoder(adapter, max_tokens=4096)
        return Collator(encoder, self.rows, self.contents, Pictures(adapter, 0.1), **options)


@pytest.fixture(scope="module")
def parts(qwen2_vl_folder, pictures):
    return Parts(qwen2_vl_folder, pictures)


def prepared(parts, adapter, row: int):
    from unime_kedro.learning.reranking.rows import messages_of

    collator = parts.collator(adapter)
    messages = messages_of(parts.rows, row, epoch=0, seed=1, fewest=3)
    return [(message, collator.prepare(message, {})) for message in messages]


def test_every_text_is_in_the_prompt_and_the_answer_behind_it(parts):
    """The release keeps texts under one name and reads another: no text reaches its training prompts."""
    adapter = parts.load()
    for row in range(len(parts.rows)):
        for message, found in prepared(parts, adapter, row):
            ids = found.piece.ids[found.piece.ids != adapter.image_id]
            told = adapter.tokenizer.decode([*ids, found.target[-1]])
            at = told.index("Query:")
            for item in (message.query, *message.candidates):
                text = parts.contents[item].text.replace("<|image_1|>", "").strip()
                assert text in told[at:]
                at = told.index(text, at) + len(text)  # in this order
            assert told.endswith(f"<|im_start|>assistant\n{message.answer}<|im_end|>")
            assert adapter.tokenizer.decode(found.target) == f"{message.answer}<|im_end|>"
            shown = [parts.contents[item].image for item in (message.query, *message.candidates)]
            assert found.files == [file for file in shown if file is not None]
            assert told.count("<|vision_start|>") == len(found.files)


def losses_by_hand(parts, adapter, rows=range(QUERIES)) -> tuple[torch.Tensor, torch.Tensor]:
    """One message at a time: no padding, nothing shared, cross entropy from the whole of the logits."""
    from unime_kedro.mllm.images import read_image

    sums: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    for row in rows:
        for message, found in prepared(parts, adapter, row):
            images = [read_image(adapter, file) for file in found.files]
            features = torch.cat(adapter.image_features(images)) if images else None
            inputs = adapter.embed_tokens(torch.from_numpy(found.piece.ids)[None], features)
            hidden = adapter.decode(inputs, torch.from_numpy(found.piece.positions)[:, None], None, None)
            logs = adapter.model.lm_head(hidden[0]).log_softmax(-1)[-len(found.target) :]
            sums[message.listwise].append(-sum(logs[i, token] for i, token in enumerate(found.target)))
    return torch.stack(sums[False]).mean(), torch.stack(sums[True]).mean()


def gradients(adapter) -> dict[str, np.ndarray]:
    return {name: p.grad.numpy().copy() for name, p in adapter.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_chunks_and_shared_heads_give_the_gradients_of_one_message_at_a_time(parts, tuning, monkeypatch):
    check_gradients(parts, tuning, monkeypatch, chunks=(1, 4, 100))


def test_the_same_holds_for_every_backbone(backbone, pictures, monkeypatch):
    check_gradients(Parts(backbone.folder, pictures), "full", monkeypatch, chunks=(4,))


def check_gradients(parts, tuning, monkeypatch, chunks):
    from unime_kedro.learning.reranking import model as models

    monkeypatch.setattr(models, "_GROUP", 3)
    adapter = parts.load(tuning)
    pairwise, listwise = losses_by_hand(parts, adapter)
    (pairwise + 0.5 * listwise).backward()
    wanted, scale = gradients(adapter), max(np.abs(g).max() for g in gradients(adapter).values())
    for chunk in chunks:
        adapter = parts.load(tuning)
        batch = parts.collator(adapter, chunk=chunk)(range(QUERIES))
        assert (batch.pairwise, batch.listwise) == (2 * QUERIES, QUERIES)
        network = models.RerankerModel(adapter).train()
        totals = {False: 0.0, True: 0.0}
        for part in batch.chunks:
            for value, message in zip(network(part), part.messages, strict=True):
                share = value / (batch.listwise if message.listwise else batch.pairwise)
                totals[message.listwise] += float(share.detach())
                (share * (0.5 if message.listwise else 1.0)).backward(retain_graph=True)
        assert totals[False] == pytest.approx(float(pairwise.detach()), rel=1e-5)
        assert totals[True] == pytest.approx(float(listwise.detach()), rel=1e-5)
        found = gradients(adapter)
        assert found.keys() == wanted.keys()
        assert max(np.abs(found[name] - wanted[name]).max() for name in wanted) / scale < 1e-5


def test_a_head_is_shared_up_to_the_first_difference_picture_or_answer():
    from unime_kedro.learning.reranking.batches import Prepared
    from unime_kedro.learning.reranking.model import common_head
    from unime_kedro.mllm.adapters.base import Piece

    def messages(*ids, answer=1):
        pieces = [Piece(np.array(i), np.zeros((3, len(i)), dtype=np.int64), len(i), 0) for i in ids]
        return [Prepared(piece, np.zeros(answer, dtype=np.int64), [], False) for piece in pieces]

    assert common_head(messages([1, 2, 3, 4], [1, 2, 4, 4]), image_id=9) == 2
    assert common_head(messages([1, 9, 3], [1, 9, 3]), image_id=9) == 1
    assert common_head(messages([1, 2, 3]), image_id=9) == 2  # the last token predicts the answer
    assert common_head(messages([1, 2, 3, 4], answer=3), image_id=9) == 1
    assert common_head(messages([1, 2], [1, 2, 3]), image_id=9) == 1
    assert common_head(messages([5, 2], [1, 2, 3]), image_id=9) == 0


def test_epochs_draw_other_places_and_show_the_same_negatives(parts):
    from unime_kedro.learning.reranking.batches import numbered
    from unime_kedro.learning.rows import batch_order

    n = len(parts.rows)
    numbers = numbered(batch_order(n, batch=5, steps=8, seed=0), n)
    assert (numbers // n).tolist() == [[epoch] * 5 for epoch in (0, 0, 0, 1, 1, 1, 2, 2)]  # 18 queries: 3 steps each
    np.testing.assert_array_equal(numbers % n, batch_order(n, batch=5, steps=8, seed=0))
    collate = parts.collator(parts.load())
    answers = [
        [tuple(m.target) for c in collate([row + n * e for row in range(n)]).chunks for m in c.messages] for e in (0, 1)
    ]
    assert answers[0] != answers[1]
    np.testing.assert_array_equal(collate([3 + n, 1]).query_ids, parts.rows.query_ids[[3, 1]])


def test_pairwise_messages_alone(parts):
    batch = parts.collator(parts.load(), listwise=False)(range(4))
    assert (batch.pairwise, batch.listwise) == (8, 0)
    assert not any(message.listwise for chunk in batch.chunks for message in chunk.messages)


def test_a_step_of_the_trainer_is_the_gradient_of_both_losses(parts, pictures, tmp_path):
    """One step of plain gradient descent: what the weights moved by is the gradient."""
    from unime_kedro.learning.rows import batch_order
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    plain = {"steps": 1, "warmup_steps": 0, "schedule": "constant", "learning_rate": 100.0, "max_gradient_norm": 0.0}
    changes = {**plain, "arguments": {"optim": "sgd"}, "seed": 1, "listwise_weight": 2.0, "validation": {"every": 0}}
    jobs.write(tmp_path, Path(parts.model), pictures, **changes)
    jobs.run(tmp_path)
    adapter = parts.load()
    (rows,) = batch_order(len(parts.rows), batch=4, steps=1, seed=1)
    pairwise, listwise = losses_by_hand(parts, adapter, rows.tolist())
    (pairwise + 2 * listwise).backward()
    trained = load_adapter(ModelSpec(str(tmp_path / "out"), device="cpu", dtype="float32"))
    after = {name: p.detach().numpy() for name, p in trained.model.named_parameters()}
    wanted = {name: 100.0 * gradient for name, gradient in gradients(adapter).items()}
    assert wanted.keys() == after.keys()
    scale = max(np.abs(step).max() for step in wanted.values())
    for name, parameter in adapter.model.named_parameters():
        moved = parameter.detach().numpy().astype(np.float64) - after[name]
        assert np.abs(moved - wanted[name]).max() / scale < 1e-5, name
