"""What is measured on held-out queries, against answers that are known and a loop."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from unime_kedro.learning.reranking.rows import RerankingRows

pytest.importorskip("torch")

ROWS = RerankingRows(np.array([3, 5]), np.array([0, 1]), np.array([2, 3]), [[4, 5, 6], [4]])


@pytest.fixture(scope="module")
def reranker(qwen2_vl_folder):
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.reranker import Reranker

    adapter = load_adapter(ModelSpec(str(qwen2_vl_folder), device="cpu", dtype="float32"))
    return Reranker(adapter, max_tokens=512, batch_tokens=2048)


def test_it_asks_what_the_model_would_be_asked_and_counts_by_hand(reranker):
    from unime_kedro.learning.reranking.rows import draw_list
    from unime_kedro.learning.reranking.validation import measure
    from unime_kedro.mllm.content import Content

    words = ["a dog", "two cats", "red star", "blue house", "green boat", "an apple", "the moon"]
    contents = {item: Content(text) for item, text in enumerate(words)}
    right = []
    for seed in range(6):
        found = measure(ROWS, contents, reranker, listwise=True, seed=seed)
        for row, (query, positive, negatives) in enumerate([(0, 2, [4, 5, 6]), (1, 3, [4])]):
            place = draw_list([3, 5][row], len(negatives), epoch=0, seed=seed, fewest=len(negatives))[1]
            shown = [*negatives[:place], positive, *negatives[place:]]
            (choice,) = reranker.choose([(contents[query], [contents[item] for item in shown])])
            scores = {item: reranker.scores(contents[query], [contents[item]])[0] for item in shown}
            pairs = [scores[positive] > 0.5, scores[negatives[0]] < 0.5]
            assert found["listwise_accuracy"][row] == (shown[choice.number - 1] == positive)
            assert found["listwise_chance"][row] == 1 / len(shown)
            assert found["pairwise_accuracy"][row] == sum(pairs) / 2
            assert found["pairwise_choice_accuracy"][row] == all(scores[positive] > scores[n] for n in negatives)
            right.append(found["listwise_accuracy"][row])
    assert 0 < sum(right) < len(right)  # both were seen


class Scores:
    """A reranker whose scores are given."""

    def __init__(self, scores: list[list[float]]) -> None:
        self._scores = iter(scores)

    def scores(self, query, candidates) -> np.ndarray:
        return np.array(next(self._scores))


@pytest.mark.parametrize(
    ("scores", "accuracy", "choice"),
    [
        ([0.9, 0.1, 0.2, 0.3], 1.0, 1.0),
        ([0.9, 0.1, 0.95, 0.3], 1.0, 0.0),  # one of the others is higher
        ([0.9, 0.9, 0.2, 0.3], 0.5, 0.0),  # a tie is wrong
        ([0.4, 0.6, 0.2, 0.3], 0.0, 0.0),
        ([0.4, 0.3, 0.2, 0.3], 0.5, 1.0),
        ([float("nan"), 0.1, 0.2, 0.3], 0.5, 0.0),
    ],
)
def test_pairwise_figures_of_scores_that_are_known(scores, accuracy, choice):
    from unime_kedro.learning.reranking.validation import measure, summary

    known = Scores([scores, [0.8, 0.1]])
    found = measure(ROWS, dict.fromkeys(range(7)), known, listwise=False, seed=0)  # type: ignore[arg-type]
    assert found["pairwise_accuracy"].to_list() == [accuracy, 1.0]
    assert found["pairwise_choice_accuracy"].to_list() == [choice, 1.0]
    figures = summary(found, np.array(["a", "b"]))
    assert not any("listwise" in key for key in figures)
    assert figures["validation_pairwise_accuracy"] == (accuracy + 1) / 2
    assert figures["validation_pairwise_accuracy/a"] == accuracy
    assert figures["validation_pairwise_choice_accuracy/b"] == 1.0


def test_means_are_over_queries_and_over_those_of_a_data_set():
    from unime_kedro.learning.reranking.validation import summary

    found = pl.DataFrame(
        {
            "listwise_accuracy": [1.0, 0.0, 0.0],
            "listwise_chance": [0.5, 0.25, 0.25],
            "pairwise_accuracy": [1.0, 0.5, 0.0],
            "pairwise_choice_accuracy": [1.0, 1.0, 0.0],
        }
    )
    figures = summary(found, np.array(["a", "b", "a"]))
    assert figures["validation_listwise_accuracy"] == pytest.approx(1 / 3)
    assert figures["validation_listwise_chance"] == pytest.approx(1 / 3)
    assert (figures["validation_listwise_accuracy/a"], figures["validation_listwise_accuracy/b"]) == (0.5, 0.0)
    assert figures["validation_pairwise_accuracy/a"] == 0.5
