"""Losses against slow loops over Python floats, and what must hold for any batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from slow_losses import slow_contrastive, slow_cosine, slow_kl, slow_soft_label, slow_softmax  # noqa: E402

from unime_kedro.learning.losses import (  # noqa: E402
    combined_info_nce,
    hard_negative_cross_entropy,
    in_batch_info_nce,
    soft_label_loss,
)

DIVERGENCES = ["symmetric", "forward", "reverse", "jensen_shannon"]
FLOORS = [0.0, 1e-8, 1e-3]
QUICK = settings(max_examples=40, deadline=None)


def batch(n=3, width=4, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, width, d)), rng.uniform(size=(n, width))


def tensors(*arrays, dtype=torch.float64):
    return [torch.as_tensor(a, dtype=dtype) for a in arrays]


def at_cosines(rows):
    """Query (1, 0) and unit candidates (c, sqrt(1 - c^2)) that have the given cosines with it."""
    cosines = torch.as_tensor(rows, dtype=torch.float64)
    candidates = torch.stack([cosines, (1 - cosines**2).clamp(min=0).sqrt()], dim=-1)
    return torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(len(cosines), 2), candidates


# --- values worked by hand ---


def test_soft_labels_by_hand():
    # P = (e, 1) / (e + 1) at cosines 1, 0 and temperature 1; Q = (1/4, 3/4) at scores 0, log 3
    query, candidates = at_cosines([[1.0, 0.0]])
    scores = torch.tensor([[0.0, math.log(3)]])
    p = math.e / (math.e + 1)
    reverse = p * math.log(p / 0.25) + (1 - p) * math.log((1 - p) / 0.75)
    forward = 0.25 * math.log(0.25 / p) + 0.75 * math.log(0.75 / (1 - p))
    m = (p + 0.25) / 2
    mixture = p * math.log(p / m) + (1 - p) * math.log((1 - p) / (1 - m))
    mixture += 0.25 * math.log(0.25 / m) + 0.75 * math.log(0.75 / (1 - m))
    expected = {
        "reverse": reverse,
        "forward": forward,
        "symmetric": (reverse + forward) / 2,
        "jensen_shannon": mixture / 2,
    }
    for divergence, value in expected.items():
        for floor in (0.0, 1e-8):
            got = soft_label_loss(
                query,
                candidates,
                scores,
                student_temperature=1.0,
                judge_temperature=1.0,
                probability_floor=floor,
                divergence=divergence,
            )
            assert float(got) == pytest.approx(value, abs=1e-6)
    # P - Q = p - 1/4, and the log-odds are 1 and -log 3: half of their product is the symmetric loss
    assert expected["symmetric"] == pytest.approx((p - 0.25) * (1 + math.log(3)) / 2, abs=1e-12)


def test_the_floor_bounds_the_logarithm_of_a_wrong_certainty():
    # the student is sure of the first, the judge of the second, both by e^-50: half of (50 + 50), or -log(1e-8)
    query, candidates = at_cosines([[1.0, 0.0]])
    scores = torch.tensor([[0.0, 1.0]])
    assert float(soft_label_loss(query, candidates, scores, probability_floor=0)) == pytest.approx(50, abs=1e-4)
    assert float(soft_label_loss(query, candidates, scores)) == pytest.approx(8 * math.log(10), abs=1e-4)


@pytest.mark.parametrize(("gap", "floor"), [(0.5, math.exp(-25)), (0.25, math.exp(-12.5))])
def test_at_a_probability_of_the_floor_value_and_gradient_are_halved_inside_the_logarithm(gap, floor):
    # the judge is sure of the second, whose p is the floor to within itself: -log(2 * floor) instead of -log(floor)
    def forward(probability_floor):
        cosines = torch.tensor([[gap, 0.0]], dtype=torch.float64, requires_grad=True)
        rest = (1 - cosines.detach() ** 2).sqrt()
        query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        loss = soft_label_loss(
            query,
            torch.stack([cosines, rest], dim=-1),
            torch.tensor([[0.0, 1e3]]),
            probability_floor=probability_floor,
            divergence="forward",
        )
        loss.backward()
        return float(loss.detach()), cosines.grad

    exact, gradient = forward(0.0)
    floored, faded = forward(floor)
    assert exact == pytest.approx(gap / 0.02, abs=1e-4)
    assert floored == pytest.approx(gap / 0.02 - math.log(2), abs=1e-4)
    torch.testing.assert_close(faded, gradient / 2, rtol=1e-4, atol=1e-6)
    assert float(gradient[0, 1]) == pytest.approx(-50, rel=1e-4)  # -1 / 0.02: nothing else is in its way


def test_jensen_shannon_with_a_floor_by_hand():
    # P = (1, 0), Q = (0, 1), M = (1/2, 1/2): log 1 - log(1/2 + floor), from both sides
    query, candidates = at_cosines([[1.0, 0.0]])
    value = soft_label_loss(
        query, candidates, torch.tensor([[0.0, 1.0]]), probability_floor=0.25, divergence="jensen_shannon"
    )
    assert float(value) == pytest.approx(-math.log(0.75), abs=1e-4)


def test_where_both_agree_the_floor_takes_the_value_below_zero_by_what_it_adds():
    # P = Q = (1/4, 1/4, 1/4, 1/4): log(1/4) - log(1/4 + floor)
    query, candidates = at_cosines([[0.3] * 4])
    value = soft_label_loss(query, candidates, torch.full((1, 4), 0.7), probability_floor=0.25)
    assert float(value) == pytest.approx(-math.log(2), abs=1e-6)


def test_certain_strangers_are_log_2_apart_in_jensen_shannon():
    query, candidates = at_cosines([[1.0, 0.0]])
    value = soft_label_loss(query, candidates, torch.tensor([[0.0, 1.0]]), divergence="jensen_shannon")
    assert float(value) == pytest.approx(math.log(2), abs=1e-6)


def test_contrastive_losses_by_hand():
    query, candidates = at_cosines([[0.6, 0.0, -1.0]])
    powers = [math.exp(2 * c) for c in (0.6, 0.0, -1.0)]
    expected = math.log(sum(powers) / powers[0])
    assert float(hard_negative_cross_entropy(query, candidates, temperature=0.5)) == pytest.approx(expected, abs=1e-6)
    assert float(combined_info_nce(query, candidates, temperature=0.5)) == pytest.approx(expected, abs=1e-6)
    assert float(in_batch_info_nce(query, candidates[0], temperature=0.5)) == pytest.approx(expected, abs=1e-6)
    # without the second candidate
    same = torch.tensor([[True, True, False]])
    expected = math.log((powers[0] + powers[2]) / powers[0])
    assert float(in_batch_info_nce(query, candidates[0], temperature=0.5, same=same)) == pytest.approx(
        expected, abs=1e-6
    )


# --- against the slow way ---


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize(("student", "judge"), [(0.02, 0.02), (0.5, 0.1), (0.02, 1.0)])
def test_soft_labels_equal_the_slow_loop(divergence, floor, student, judge):
    for seed in range(5):
        query, candidates, scores = batch(seed=seed)
        got = soft_label_loss(
            *tensors(query, candidates, scores),
            student_temperature=student,
            judge_temperature=judge,
            probability_floor=floor,
            divergence=divergence,
        )
        assert got.dtype == torch.float32
        assert got.shape == ()
        expected = slow_soft_label(query, candidates, scores, student, judge, floor, divergence)
        assert float(got) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), extra=st.integers(0, 4), density=st.floats(0, 1))
@QUICK
def test_in_batch_info_nce_equals_the_slow_loop(seed, n, extra, density):
    rng = np.random.default_rng(seed)
    query, targets = rng.normal(size=(n, 6)), rng.normal(size=(n + extra, 6))
    same = rng.uniform(size=(n, n + extra)) < density  # the diagonal, too: it must not matter
    left_out = {(i, j) for i, j in zip(*np.nonzero(same), strict=True)}
    q, t = tensors(query, targets)
    for temperature in (0.02, 0.3):
        got = in_batch_info_nce(q, t, temperature=temperature)
        masked = in_batch_info_nce(q, t, temperature=temperature, same=torch.from_numpy(same))
        assert float(got) == pytest.approx(slow_contrastive(query, targets, range(n), temperature), rel=1e-4, abs=1e-4)
        expected = slow_contrastive(query, targets, range(n), temperature, left_out)
        assert float(masked) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), width=st.integers(2, 5), density=st.floats(0, 1))
@QUICK
def test_losses_with_hard_negatives_equal_the_slow_loop(seed, n, width, density):
    query, candidates, _ = batch(n, width, seed=seed)
    q, c = tensors(query, candidates)
    own = sum(slow_contrastive(query[i : i + 1], candidates[i], [0]) for i in range(n)) / n
    assert float(hard_negative_cross_entropy(q, c)) == pytest.approx(own, rel=1e-4, abs=1e-4)
    rows, positives = [row for group in candidates for row in group], [i * width for i in range(n)]
    expected = slow_contrastive(query, rows, positives)
    assert float(combined_info_nce(q, c)) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    same = np.random.default_rng(seed).uniform(size=(n, n * width)) < density
    left_out = {(i, j) for i, j in zip(*np.nonzero(same), strict=True)}
    expected = slow_contrastive(query, rows, positives, left_out=left_out)
    assert float(combined_info_nce(q, c, same=torch.from_numpy(same))) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_floor_in_one_logarithm_or_in_both_is_hardly_a_difference():
    # the release adds 1e-8 to B alone in KL(A||B); A * log(1 + 1e-8 / A) < 1e-8 for each of the four candidates
    def both(a, b):
        return math.fsum(x * (math.log(x + 1e-8) - math.log(y + 1e-8)) for x, y in zip(a, b, strict=True))

    floored = 0
    for seed in range(20):
        query, candidates, scores = batch(n=1, seed=seed)
        p = slow_softmax([slow_cosine(query[0], c) for c in candidates[0]], 0.02)
        q = slow_softmax(scores[0], 0.02)
        expected = (slow_kl(p, q, 1e-8) + slow_kl(q, p, 1e-8)) / 2
        assert expected == pytest.approx((both(p, q) + both(q, p)) / 2, abs=5e-8)
        got = float(soft_label_loss(*tensors(query, candidates, scores)))
        assert got == pytest.approx(expected, rel=2e-5, abs=1e-4)
        floored += expected < (slow_kl(p, q, 0) + slow_kl(q, p, 0)) / 2 - 1
    assert floored >= 10  # it is no small thing at these temperatures


# --- properties ---

cosines = st.lists(st.floats(-0.95, 0.95), min_size=2, max_size=6)


@given(values=cosines, divergence=st.sampled_from(DIVERGENCES), floor=st.sampled_from(FLOORS), shift=st.floats(-1, 1))
@QUICK
def test_a_student_who_agrees_has_no_loss_and_no_gradient(values, divergence, floor, shift):
    query, candidates = at_cosines([values])
    candidates.requires_grad_()
    # twice the temperature takes twice the difference
    loss = soft_label_loss(
        query,
        candidates,
        2 * torch.tensor([values], dtype=torch.float64) + shift,
        student_temperature=0.1,
        judge_temperature=0.2,
        probability_floor=floor,
        divergence=divergence,
    )
    assert -math.log(1 + floor * len(values)) - 1e-5 <= float(loss.detach()) <= 1e-5
    if floor == 0:  # where the floor stands in one logarithm alone, agreement is not exactly the minimum
        loss.backward()
        assert float(candidates.grad.abs().max()) < 1e-3


@given(pairs=st.lists(st.tuples(st.floats(-0.95, 0.95), st.floats(-0.95, 0.95)), min_size=2, max_size=6))
@QUICK
def test_symmetric_divergences_do_not_care_who_is_the_judge(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    for divergence in ("symmetric", "jensen_shannon"):
        for floor in FLOORS:
            options = {"divergence": divergence, "probability_floor": floor}
            one = soft_label_loss(*at_cosines([a]), torch.tensor([b]), **options)
            other = soft_label_loss(*at_cosines([b]), torch.tensor([a]), **options)
            assert float(one) == pytest.approx(float(other), rel=1e-4, abs=1e-4)
    forward = soft_label_loss(*at_cosines([a]), torch.tensor([b]), divergence="forward", probability_floor=0)
    reverse = soft_label_loss(*at_cosines([b]), torch.tensor([a]), divergence="reverse", probability_floor=0)
    assert float(forward) == pytest.approx(float(reverse), rel=1e-4, abs=1e-4)


@given(seed=st.integers(0, 10_000), shift=st.floats(-3, 3), divergence=st.sampled_from(DIVERGENCES))
@QUICK
def test_a_constant_added_to_a_querys_scores_changes_nothing(seed, shift, divergence):
    query, candidates, scores = tensors(*batch(seed=seed))
    shifts = torch.tensor([[shift], [0.0], [-shift]], dtype=torch.float64)
    one = soft_label_loss(query, candidates, scores, divergence=divergence)
    other = soft_label_loss(query, candidates, scores + shifts, divergence=divergence)
    assert float(one) == pytest.approx(float(other), rel=1e-4, abs=2e-4)


def all_losses(query, candidates, scores, **options) -> list:
    return [
        *(soft_label_loss(query, candidates, scores, divergence=d, **options) for d in DIVERGENCES),
        soft_label_loss(query, candidates, scores, probability_floor=0, **options),
        hard_negative_cross_entropy(query, candidates),
        combined_info_nce(query, candidates),
        in_batch_info_nce(query, candidates[:, 0]),
    ]


def values_of(losses) -> list[float]:
    return [float(x.detach()) for x in losses]


@given(seed=st.integers(0, 10_000), exponent=st.floats(-15, 15))
@QUICK
def test_the_length_of_embeddings_changes_nothing(seed, exponent):
    query, candidates, scores = tensors(*batch(seed=seed))
    factors = torch.tensor([10**exponent, 1.0, 3.0], dtype=torch.float64)[:, None]
    lengths = 10 ** torch.linspace(-exponent, exponent, 4, dtype=torch.float64)[None, :, None]
    got = values_of(all_losses(query * factors, candidates * lengths, scores))
    assert got == pytest.approx(values_of(all_losses(query, candidates, scores)), rel=1e-4, abs=2e-4)


@given(seed=st.integers(0, 10_000), data=st.data())
@QUICK
def test_the_order_of_the_negatives_and_of_the_queries_changes_nothing(seed, data):
    query, candidates, scores = tensors(*batch(seed=seed))
    columns = [0, *data.draw(st.permutations([1, 2, 3]))]
    rows = data.draw(st.permutations([0, 1, 2]))
    expected = values_of(all_losses(query, candidates, scores))
    got = values_of(all_losses(query[rows], candidates[rows][:, columns], scores[rows][:, columns]))
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-4)


# --- gradients: central differences of the slow way, in double precision ---


def differences(function, array, step=1e-6):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        up, down = array.copy(), array.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def assert_gradients(fast, slow, query, candidates):
    q, c = (t.requires_grad_() for t in tensors(query, candidates))
    fast(q, c).backward()
    for got, expected in [
        (q.grad, differences(lambda x: slow(x, candidates), query)),
        (c.grad, differences(lambda x: slow(query, x), candidates)),
    ]:
        assert np.abs(expected).max() > 1e-3  # there is something to compare
        np.testing.assert_allclose(got.numpy(), expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("student", [0.02, 0.3])
def test_gradient_of_the_soft_label_loss(divergence, floor, student):
    query, candidates, scores = batch(seed=3)
    judged = torch.from_numpy(scores).requires_grad_()
    options = {"divergence": divergence, "student_temperature": student, "judge_temperature": 0.3}
    assert_gradients(
        lambda q, c: soft_label_loss(q, c, judged, probability_floor=floor, **options),
        lambda q, c: slow_soft_label(q, c, scores, student, 0.3, floor, divergence),
        query,
        candidates,
    )
    assert judged.grad is None  # the judge is frozen


def test_gradients_of_the_contrastive_losses():
    query, candidates, _ = batch(seed=3)
    same = np.zeros((3, 12), dtype=bool)
    same[0, 4] = same[1, 5] = same[2, 8] = True
    rows = range(0, 12, 4)
    left_out = {(0, 4), (1, 5)}
    assert_gradients(
        lambda q, c: combined_info_nce(q, c, temperature=0.3, same=torch.from_numpy(same)),
        lambda q, c: slow_contrastive(q, c.reshape(12, -1), rows, 0.3, left_out),
        query,
        candidates,
    )
    assert_gradients(
        lambda q, c: hard_negative_cross_entropy(q, c, temperature=0.3),
        lambda q, c: sum(slow_contrastive(q[i : i + 1], c[i], [0], 0.3) for i in range(3)) / 3,
        query,
        candidates,
    )
    assert_gradients(
        lambda q, c: in_batch_info_nce(q, c[:, 0], temperature=0.3),
        lambda q, c: slow_contrastive(q, c[:, 0], range(3), 0.3),
        query,
        candidates,
    )


# --- numbers: types and extremes ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_type_is_computed_in_float32(dtype):
    query, candidates, scores = tensors(*batch(d=64), dtype=dtype)
    # the rounding of the input is not the loss's: float32 of the same rounded numbers gives exactly the same
    expected = values_of(all_losses(query.float(), candidates.float(), scores.float()))
    losses = all_losses(query, candidates, scores)
    assert values_of(losses) == expected
    assert {x.dtype for x in losses} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        assert values_of(all_losses(query, candidates, scores)) == expected


def test_bfloat16_input_is_close_to_float32():
    query, candidates, scores = tensors(*batch(d=64), dtype=torch.float32)
    options = {"student_temperature": 0.5, "judge_temperature": 0.5}
    exact = soft_label_loss(query, candidates, scores, **options)
    rounded = soft_label_loss(query.bfloat16(), candidates.bfloat16(), scores.bfloat16(), **options)
    assert float(rounded) == pytest.approx(float(exact), rel=0.05)
    assert float(rounded) != float(exact)


@pytest.mark.parametrize("length", [0.0, 1e-38, 1e-20, 1e20, 1e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_embeddings_give_finite_losses_and_gradients(length, dtype):
    query, candidates, scores = tensors(*batch(), dtype=torch.float32)
    query = query / query.abs().max()
    candidates = candidates / candidates.abs().max()
    query[0] *= length
    candidates[0, 0] *= length
    candidates[1, 2] *= length
    query, candidates = (t.to(dtype).requires_grad_() for t in (query, candidates))
    for temperature in (0.001, 0.02, 100.0):
        losses = all_losses(query, candidates, scores, student_temperature=temperature, judge_temperature=temperature)
        assert all(math.isfinite(x) for x in values_of(losses))
    for loss in all_losses(query, candidates, scores):
        query.grad = candidates.grad = None
        loss.backward()
        # a gradient has the size of 1 / length, and 1 / 1e-38 / temperature is beyond float32
        if length != 1e-38:
            assert all(g is None or torch.isfinite(g).all() for g in (query.grad, candidates.grad))


@pytest.mark.parametrize("floor", [0.0, 1e-8, 1e-30])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("sure", ["positive", "negative", "neither"])
def test_opposite_embeddings_at_a_low_temperature_give_the_expected_value_and_finite_gradients(floor, divergence, sure):
    # logits 100 and -100, the judge's 0 and 1 over .01
    query, candidates = at_cosines([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]])
    query = query.clone()
    scores = {"positive": [1.0, 0.0, 0.0], "negative": [0.0, 0.0, 1.0], "neither": [0.5, 0.5, 0.5]}[sure]
    query.requires_grad_()
    candidates.requires_grad_()
    loss = soft_label_loss(
        query,
        candidates,
        torch.tensor([scores, scores]),
        student_temperature=0.01,
        judge_temperature=0.01,
        probability_floor=floor,
        divergence=divergence,
    )
    expected = slow_soft_label(query.tolist(), candidates.tolist(), [scores, scores], 0.01, 0.01, floor, divergence)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-4)
    loss.backward()
    assert torch.isfinite(query.grad).all()
    assert torch.isfinite(candidates.grad).all()


def test_a_zero_embedding_has_cosine_zero_with_all():
    query, candidates, _ = tensors(*batch(n=1))
    assert float(hard_negative_cross_entropy(query * 0, candidates)) == pytest.approx(math.log(4), abs=1e-6)


def test_with_all_negatives_left_out_there_is_nothing_to_learn():
    query, candidates, _ = tensors(*batch())
    query.requires_grad_()
    loss = in_batch_info_nce(query, candidates[:, 0], same=torch.ones(3, 3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(query.grad.abs().max()) == 0


# --- errors ---


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3,), (3, 4, 5), (3, 4)), r"query is \(3,\); expected \(n, d\)"),
        (((0, 5), (0, 4, 5), (0, 4)), r"query is \(0, 5\)"),
        (((3, 5), (3, 5), (3, 4)), r"candidates are \(3, 5\); expected \(3, k\+1, 5\)"),
        (((3, 5), (2, 4, 5), (2, 4)), r"candidates are \(2, 4, 5\)"),
        (((3, 5), (3, 4, 6), (3, 4)), r"candidates are \(3, 4, 6\)"),
        (((3, 5), (3, 1, 5), (3, 1)), r"k\+1 >= 2"),
        (((3, 5), (3, 4, 5), (3, 3)), r"judge_scores are \(3, 3\); expected \(3, 4\)"),
        (((3, 5), (3, 4, 5), (12,)), r"judge_scores are \(12,\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    query, candidates, scores = (torch.ones(s) for s in shapes)
    with pytest.raises(ValueError, match=message):
        soft_label_loss(query, candidates, scores)
    if "judge" not in message:
        with pytest.raises(ValueError, match=message):
            hard_negative_cross_entropy(query, candidates)


def test_shapes_of_the_in_batch_losses():
    query, targets = torch.ones(3, 5), torch.ones(4, 5)
    for wrong in (targets[:2], torch.ones(4, 6), torch.ones(3, 2, 5)):
        with pytest.raises(ValueError, match=r"expected \(m, 5\) with m >= 3"):
            in_batch_info_nce(query, wrong)
    for wrong in (torch.zeros(3, 3, dtype=torch.bool), torch.zeros(3, 4)):
        with pytest.raises(ValueError, match=r"expected \(3, 4\) of torch.bool"):
            in_batch_info_nce(query, targets, same=wrong)
    with pytest.raises(ValueError, match=r"expected \(3, 6\) of torch.bool"):
        combined_info_nce(query, torch.ones(3, 2, 5), same=torch.zeros(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"k\+1 >= 1"):
        combined_info_nce(query, torch.ones(3, 0, 5))


@pytest.mark.parametrize("temperature", [0.0, -0.02, math.nan, math.inf])
def test_temperatures_are_positive(temperature):
    query, candidates, scores = tensors(*batch())
    for name in ("student_temperature", "judge_temperature"):
        with pytest.raises(ValueError, match=f"{name} is {temperature}"):
            soft_label_loss(query, candidates, scores, **{name: temperature})
    for loss in (hard_negative_cross_entropy, combined_info_nce):
        with pytest.raises(ValueError, match=f"temperature is {temperature}"):
            loss(query, candidates, temperature=temperature)
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        in_batch_info_nce(query, query, temperature=temperature)


@pytest.mark.parametrize("floor", [-1e-8, 1.0, math.nan])
def test_the_floor_is_a_probability(floor):
    with pytest.raises(ValueError, match="probability_floor"):
        soft_label_loss(*tensors(*batch()), probability_floor=floor)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_named(bad):
    query, candidates, scores = tensors(*batch())
    scores[1, 2] = bad
    with pytest.raises(ValueError, match="1 rows are NaN or infinite, first in row 1"):
        soft_label_loss(query, candidates, scores)


def test_an_unknown_divergence_is_answered_with_the_known():
    with pytest.raises(ValueError, match="'js'; known are symmetric, forward, reverse, jensen_shannon"):
        soft_label_loss(*tensors(*batch()), divergence="js")
