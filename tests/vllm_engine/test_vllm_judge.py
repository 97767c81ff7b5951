"""The judge on vLLM against the judge on transformers."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_engines import MAX_TOKENS, new_judge, spec

from unime_kedro.errors import ModelError
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.judge import PrefixJudge
from unime_kedro.mllm.judgements import score


@pytest.fixture(scope="module")
def by_transformers(queries, candidates):
    judge = PrefixJudge(load_adapter(spec()), batch_size=4, max_tokens=MAX_TOKENS)
    return [judge.judge(query, candidates) for query in queries], judge.counts.truncated


@pytest.fixture
def judge(vllm_judge):
    """A judge of the test's own on the one engine, whose cache is empty."""
    found = new_judge(check_pairs=0)
    found.engine, found.pictures = vllm_judge.engine, vllm_judge.pictures
    found.engine.start()
    assert found.engine._llm.reset_prefix_cache()
    found.engine.prompt_tokens = found.engine.cached_tokens = 0
    return found


def test_logits_and_scores_are_those_of_transformers(judge, queries, candidates, by_transformers):
    wanted, truncated = by_transformers
    found = list(judge.judge_all([(query, candidates) for query in queries]))
    for a, b in zip(found, wanted, strict=True):
        assert a.errors == b.errors == [""] * len(candidates)
        np.testing.assert_allclose(a.yes, b.yes, atol=4e-4)
        np.testing.assert_allclose(a.no, b.no, atol=4e-4)
        np.testing.assert_allclose(score(a.yes, a.no), score(b.yes, b.no), atol=1e-4)
    # the comparison means something: the pairs differ by far more than the tolerance
    assert np.ptp([score(b.yes, b.no) for b in wanted]) > 0.05
    assert judge.prompts.counts.truncated == truncated > 0


def test_results_do_not_depend_on_the_size_of_chunks(judge, queries, candidates):
    groups = [(query, candidates) for query in queries]
    whole = list(judge.judge_all(groups))
    for size in (1, 7, 13):
        judge.chunk_pairs = size
        for a, b in zip(judge.judge_all(groups), whole, strict=True):
            np.testing.assert_allclose(a.yes - a.no, b.yes - b.no, atol=1e-4)


def test_a_chunk_is_yielded_before_the_next_is_judged(judge, queries, candidates):
    judge.chunk_pairs = len(candidates)
    stream = judge.judge_all([(query, candidates) for query in queries])
    next(stream)
    first = judge.metrics()["prompt_tokens"]
    list(stream)
    assert 0 < first < judge.metrics()["prompt_tokens"] / 3


def test_the_hit_rate_counts_what_queries_share(judge):
    queries = [Content(f"query number {i}: " + "many words to share " * 12) for i in range(12)]
    candidates = [Content(f"candidate {i}") for i in range(6)]
    list(judge.judge_all([(query, candidates) for query in queries]))
    metrics = judge.metrics()
    assert metrics["prefix_hit_rate"] == metrics["prefix_reuse_share"] > 0.5
    assert metrics["run_tokens"] == pytest.approx((1 - metrics["prefix_hit_rate"]) * metrics["prompt_tokens"])
    # only whole blocks of 32 tokens are found again, and never the last token
    prefix = len(judge.prompts.query_piece(queries[0]).ids)
    whole = prefix + len(judge.prompts.candidate_piece(candidates[0]).ids)
    assert metrics["prompt_tokens"] == pytest.approx(72 * whole, rel=0.02)
    assert metrics["prefix_hit_rate"] <= prefix / whole


def test_a_small_cache_serves_sorted_prompts_and_not_shuffled_ones():
    judge = new_judge(check_pairs=0, chunk_pairs=1000)
    arguments = judge.engine._arguments
    # 20 blocks of 32 tokens: room for a handful of prompts, where a real corpus has thousands
    judge.engine._arguments = lambda: {**arguments(), "num_gpu_blocks_override": 20}
    pairs = [
        (Content(f"{i} queries: " + "many words to share " * 12), Content(f"no {j}"))
        for i in range(12)
        for j in range(8)
    ]
    rates, logits = [], []
    for order in (np.arange(len(pairs)), np.random.default_rng(0).permutation(len(pairs))):
        found = list(judge.judge_all([(pairs[i][0], [pairs[i][1]]) for i in order]))
        logits.append(np.array([f.yes[0] for f in found])[np.argsort(order)])
        rates.append(judge.metrics()["prefix_hit_rate"])
        judge.engine.prompt_tokens = judge.engine.cached_tokens = 0
        judge.engine._llm.reset_prefix_cache()
    judge.close()
    assert rates[0] > rates[1] + 0.1
    np.testing.assert_allclose(logits[0], logits[1], atol=4e-4)


def test_equal_pictures_under_two_names_are_one_for_the_cache(judge, pictures, tmp_path):
    """Different pictures in the same place must not be taken for each other, equal ones should be."""
    copy = tmp_path / "copy.png"
    copy.write_bytes(pictures[0].read_bytes())
    text = "<|image_1|>\n" + "What is shown here, in how many words, and why? " * 6
    alone = [next(judge.judge_all([(Content(text, picture), [Content("a dog")])])) for picture in pictures[:2]]
    before = judge.engine.cached_tokens
    again = next(judge.judge_all([(Content(text, copy), [Content("a dog")])]))
    assert judge.engine.cached_tokens - before > len(judge.prompts.query_piece(Content(text, copy)).ids) * 0.8
    assert again.yes == pytest.approx(alone[0].yes, abs=1e-4)
    assert abs(alone[0].yes - alone[1].yes) > 1e-3


def test_a_bad_picture_costs_its_own_pairs_only(judge, queries, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    good = Content("a dog and a pen")
    found = list(judge.judge_all([(queries[0], [good, Content("", broken), good]), (Content("", broken), [good])]))
    assert [bool(e) for e in found[0].errors] == [False, True, False]
    assert "broken.png" in found[0].errors[1]
    assert np.isnan(found[0].yes[1])
    assert found[0].yes[0] == pytest.approx(found[0].yes[2], abs=1e-4)
    assert "broken.png" in found[1].errors[0]


def test_what_the_engine_refuses_is_an_error_of_that_pair_alone(judge, queries, candidates, monkeypatch):
    """A token that the model does not have: vLLM refuses the whole list, and so it is halved until one is left."""
    encode = judge.adapter.encode

    def with_a_token_too_many(text, image):
        piece = encode(text, image)
        if "a dog and a pen" in text:
            piece.ids[5] = 10**6
        return piece

    wanted = next(judge.judge_all([(queries[0], candidates)]))
    judge.prompts._pieces.clear()
    monkeypatch.setattr(judge.adapter, "encode", with_a_token_too_many)
    found = next(judge.judge_all([(queries[0], candidates)]))
    assert found.errors[0].startswith("vLLM refused the prompt: ")
    assert np.isnan(found.yes[0])
    assert found.errors[1:] == [""] * (len(candidates) - 1)
    np.testing.assert_allclose(found.yes[1:], wanted.yes[1:], atol=1e-4)


def test_a_prompt_longer_than_the_engine_takes_is_an_error(judge, queries, candidates, monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(judge.engine, "options", replace(judge.engine.options, max_model_len=150))
    found = next(judge.judge_all([(queries[0], candidates)]))
    assert not found.errors[0]
    assert found.errors[2].startswith("a prompt of ")
    assert found.errors[2].endswith(" tokens, vllm.max_model_len is 150")


def test_the_check_shows_the_worst_pair(judge, queries, candidates, monkeypatch):
    """An engine that adds a little to one answer is not trusted."""
    judge.check_pairs = 4
    list(judge.judge_all([(queries[0], candidates)]))
    assert judge.checked == 4
    assert 0 < judge.metrics()["checked_difference"] < 1e-4
    judge.checked = 0
    answers = judge.engine._answers

    def wrong(prompts):
        found = answers(prompts)
        found[2].values[0] += 0.01
        return found

    monkeypatch.setattr(judge.engine, "_answers", wrong)
    with pytest.raises(ModelError, match=r"of 4 pairs the worst has score .*one word more"):
        list(judge.judge_all([(queries[0], candidates[:4])]))


def test_its_scores_have_a_store_of_their_own(judge):
    plain = PrefixJudge(load_adapter(spec()), batch_size=1, max_tokens=MAX_TOKENS).identity()
    assert judge.identity() == {**plain, "engine": "vllm"}
