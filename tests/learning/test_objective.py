"""The loss of a batch by name, against slow loops over what each query is compared with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from slow_losses import slow_contrastive, slow_soft_label  # noqa: E402

from unime_kedro.learning.objective import Objective, needs_negatives  # noqa: E402

QUICK = settings(max_examples=40, deadline=None)
KINDS = ["in_batch", "hard", "combined", "soft"]
#: few different contents, so that equal ones meet
batches = st.tuples(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4), st.integers(2, 12))


def batch(seed=0, n=4, k=3, contents=9):
    """Embeddings that are the same where their content is, as an encoder gives them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, contents, size=(n, k + 2))
    return rng.normal(size=(contents, 6))[ids], rng.uniform(size=(n, k + 1)), ids


def loss_of(kind, embeddings, scores, ids, **options) -> float:
    named = Objective(kind, **options)
    return float(named(torch.from_numpy(embeddings), torch.from_numpy(scores), torch.from_numpy(ids)))


def slow_pooled(embeddings, ids, columns) -> float:
    """Every query against the given columns of all rows, but for contents that are its positive's."""
    n = len(ids)
    places = [(j, c) for j in range(n) for c in columns]
    rows = [embeddings[j, c] for j, c in places]
    left_out = {(i, p) for i in range(n) for p, (j, c) in enumerate(places) if ids[j, c] == ids[i, 1]}
    positives = [places.index((i, 1)) for i in range(n)]
    return slow_contrastive(embeddings[:, 0], rows, positives, 0.1, left_out)


@given(batches)
@QUICK
def test_in_batch_is_each_query_against_all_positives_but_those_of_equal_content(shape):
    embeddings, scores, ids = batch(*shape)
    expected = slow_pooled(embeddings, ids, [1])
    assert loss_of("in_batch", embeddings, scores, ids, student_temperature=0.1) == pytest.approx(expected, abs=1e-4)
    # hard negatives are not looked at, and need not be there
    short = embeddings[:, :2], scores[:, :1], ids[:, :2]
    assert loss_of("in_batch", *short, student_temperature=0.1) == pytest.approx(expected, abs=1e-4)


@given(batches)
@QUICK
def test_combined_is_each_query_against_all_candidates_but_those_of_equal_content(shape):
    embeddings, scores, ids = batch(*shape)
    expected = slow_pooled(embeddings, ids, range(1, embeddings.shape[1]))
    assert loss_of("combined", embeddings, scores, ids, student_temperature=0.1) == pytest.approx(expected, abs=1e-4)


@given(batches)
@QUICK
def test_hard_and_soft_are_each_query_against_its_own_candidates(shape):
    embeddings, scores, ids = batch(*shape)
    own = [slow_contrastive(row[:1], row[1:], [0], 0.1) for row in embeddings]
    got = loss_of("hard", embeddings, scores, ids, student_temperature=0.1)
    assert got == pytest.approx(sum(own) / len(own), abs=1e-4)
    for divergence in ("symmetric", "forward", "reverse", "jensen_shannon"):
        expected = slow_soft_label(embeddings[:, 0], embeddings[:, 1:], scores, 0.1, 0.3, 1e-3, divergence)
        options = {"student_temperature": 0.1, "judge_temperature": 0.3, "probability_floor": 1e-3}
        got = loss_of("soft", embeddings, scores, ids, divergence=divergence, **options)
        assert got == pytest.approx(expected, abs=1e-4)


def test_combined_by_hand():
    # two queries (1, 0) at temperature 1; both positives are content 7, both negatives content 8: the other's positive
    # is left out, the shared negative counts twice: cosines 1 | 0, 0
    row = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    ids = np.array([[1, 7, 8], [2, 7, 8]])
    got = loss_of("combined", np.array([row, row]), np.ones((2, 2)), ids, student_temperature=1.0)
    assert got == pytest.approx(np.log((np.e + 2) / np.e), abs=1e-6)
    ids[1, 1] = 9  # now it is another content
    got = loss_of("combined", np.array([row, row]), np.ones((2, 2)), ids, student_temperature=1.0)
    assert got == pytest.approx(np.log((2 * np.e + 2) / np.e), abs=1e-6)


@given(batches, st.randoms(use_true_random=False))
@QUICK
def test_the_order_of_queries_and_the_numbering_of_contents_change_nothing(shape, random):
    embeddings, scores, ids = batch(*shape)
    order = random.sample(range(len(ids)), len(ids))
    for kind in KINDS:
        expected = loss_of(kind, embeddings, scores, ids)
        assert loss_of(kind, embeddings[order], scores[order], 5000 - ids[order]) == pytest.approx(expected, abs=1e-4)


def test_gradients_reach_what_a_kind_reads_and_nothing_else():
    embeddings, scores, ids = batch(contents=1000)
    for kind in KINDS:
        leaf = torch.from_numpy(embeddings).requires_grad_()
        judged = torch.from_numpy(scores).requires_grad_()
        Objective(kind, student_temperature=0.5, judge_temperature=0.5)(leaf, judged, torch.from_numpy(ids)).backward()
        reached = leaf.grad.abs().amax(dim=(0, 2)) > 0
        assert reached.tolist() == [True, True] + [needs_negatives(kind)] * 3
        assert judged.grad is None  # the judge is frozen


def test_kinds_say_what_they_need():
    assert [kind for kind in KINDS if needs_negatives(kind)] == ["hard", "combined", "soft"]
    for call in (needs_negatives, Objective):
        with pytest.raises(ValueError, match="unknown loss 'js'; known are in_batch, hard, combined, soft"):
            call("js")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_temperature": 0.0}, "student_temperature is 0.0"),
        ({"judge_temperature": -1.0}, "judge_temperature is -1.0"),
        ({"probability_floor": 1.0}, "probability_floor is 1.0"),
        ({"divergence": "kl"}, "unknown divergence 'kl'"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_options_are_errors_before_there_is_a_batch(kind, options, message):
    with pytest.raises(ValueError, match=message):
        Objective(kind, **options)


def test_shapes_that_do_not_fit():
    embeddings, scores, ids = (torch.from_numpy(a) for a in batch())
    named = Objective("soft")
    for wrong, message in (
        ((embeddings[0], scores, ids), r"embeddings are \(5, 6\); expected \(n, k\+2, d\) with k >= 1 for loss soft"),
        ((embeddings[:, :2], scores[:, :1], ids[:, :2]), r"embeddings are \(4, 2, 6\).*k >= 1"),
        ((embeddings, scores, ids[:, 1:]), r"item_ids are \(4, 4\) of torch.int64; expected \(4, 5\)"),
        ((embeddings, scores, ids.double()), r"item_ids are \(4, 5\) of torch.float64"),
        ((embeddings, scores[:, 1:], ids), r"judge_scores are \(4, 3\); expected \(4, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            named(*wrong)
    with pytest.raises(ValueError, match=r"embeddings are \(4, 1, 6\).*k >= 0 for loss in_batch"):
        Objective("in_batch")(embeddings[:, :1], scores[:, :0], ids[:, :1])


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_an_in_batch_term_adds_so_much_of_that_loss(kind):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(5, 4, 6, generator=generator)
    scores = torch.rand(5, 3, generator=generator)
    ids = torch.arange(20).reshape(5, 4)
    ids[3, 1] = ids[0, 1]  # two queries share a positive
    alone, batch = (Objective(k)(embeddings, scores, ids) for k in (kind, "in_batch"))
    found = Objective(kind, in_batch_weight=0.3)(embeddings, scores, ids)
    assert float(found) == pytest.approx(float(alone) + 0.3 * float(batch), rel=1e-6)
    with pytest.raises(ValueError, match="in_batch_weight"):
        Objective(kind, in_batch_weight=-1.0)
