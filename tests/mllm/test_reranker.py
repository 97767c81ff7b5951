"""The reranker against transformers' own forward pass, one prompt and one token at a time."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.decoding import ConstrainedAnswer, FreeAnswer
from unime_kedro.mllm.judge import PrefixJudge
from unime_kedro.mllm.reranker import Reranker

PROMPT = (
    "I will provide you with a query followed by multiple candidates in the format: (1) cand1 (2) cand2, etc. Each "
    "candidate is independent of the others. Evaluate each candidate against the query, and respond with the number "
    "corresponding to the candidate that best meets the requirements of the query. Query:{}, Candidates:{}."
)


class Naive:
    """Builds the whole chat by hand and runs the model's own forward; nothing of the project but its files."""

    def __init__(self, adapter, query: Content, candidates: list[Content]) -> None:
        self.adapter, self.pixels, self.grids = adapter, [], []
        shown = self.shown(query)  # the query's picture comes first
        whole = PROMPT.format(shown, "".join(f" ({n}) {self.shown(c)}" for n, c in enumerate(candidates, start=1)))
        self.ids = adapter.tokenizer(f"<|im_start|>user\n{whole}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]

    def shown(self, side: Content) -> str:
        if side.image is None:
            return side.text
        out = self.adapter.image_processor(images=[Image.open(side.image).convert("RGB")], return_tensors="pt")
        self.pixels.append(out["pixel_values"])
        self.grids.append(out["image_grid_thw"])
        block = "<|vision_start|>" + "<|image_pad|>" * (int(out["image_grid_thw"].prod()) // 4) + "<|vision_end|>"
        return (
            side.text.replace("<|image_1|>", block)
            if "<|image_1|>" in side.text
            else f"{block}\n{side.text}".rstrip("\n")
        )

    def logits(self, answer: list[int]) -> np.ndarray:
        """Logits of the token behind the beginning of an answer."""
        import torch

        ids = torch.tensor([[*self.ids, *answer]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.pixels:
            inputs |= {"pixel_values": torch.cat(self.pixels), "image_grid_thw": torch.cat(self.grids)}
            inputs["mm_token_type_ids"] = (ids == self.adapter.image_id).long()
        self.adapter.model.model.rope_deltas = None
        with torch.no_grad():
            return self.adapter.model(**inputs, use_cache=False).logits[0, -1].double().numpy()


def constrained_by_hand(adapter, query, candidates) -> tuple[int, float]:
    """Greedy among the tokens that go on to an answer; returns its number and probability."""
    naive = Naive(adapter, query, candidates)
    tokens = {n: adapter.tokenizer(f"Ans: ({n})")["input_ids"] for n in range(1, len(candidates) + 1)}
    chosen, probability = [], 1.0
    while tokens:
        possible = [t for t in tokens.values() if t[: len(chosen)] == chosen]
        if len(possible) == 1:
            return next(n for n, t in tokens.items() if t == possible[0]), probability
        following = list(dict.fromkeys(t[len(chosen)] for t in possible))
        shares = np.exp(naive.logits(chosen)[following])
        chosen.append(following[int(np.argmax(shares))])
        probability *= shares.max() / shares.sum()
    raise AssertionError


def free_by_hand(adapter, query, candidates) -> str:
    naive, chosen = Naive(adapter, query, candidates), []
    while len(chosen) < 12:
        chosen.append(int(np.argmax(naive.logits(chosen))))
        if chosen[-1] == adapter.tokenizer.eos_token_id:
            break
    return adapter.tokenizer.decode(chosen, skip_special_tokens=True)


def prompts_of(pictures):
    words = [
        "a dog and a pen",
        "an axe",
        "a picture of the camera, the pie and the dog",
        "a cat",
        "the pie",
        "three pens",
    ]
    texts = [Content(text) for text in words]
    images = [Content("<|image_1|>\nRepresent the given image.\n", p) for p in pictures[:5]]
    scene = Content("<|image_1|>\nFind an image caption describing the given image.\n", pictures[0])
    caption = Content("Find me an image that matches the given caption: a dog, a pen and an axe\n")
    crop = Content('Select the portion <|image_1|> labeled as "the dog"\n', pictures[3])
    many = [Content(f"{text} {i}") for i in range(2) for text in words]
    return [
        (scene, texts),
        (caption, images),
        (crop, [*images, Content("", pictures[6])]),
        (caption, [*texts, *images, Content("", pictures[6])]),  # 12 candidates: 1, 10, 11 and 12 begin alike
        (caption, texts[:2]),
        (scene, [*many[3:], *many[:3]]),
        (crop, many),
        (Content("", pictures[7]), many[::-1][:11]),
    ]


def reranker_of(adapter, **changes) -> Reranker:
    return Reranker(adapter, **{"max_tokens": 4096, "batch_tokens": 16384} | changes)


@pytest.fixture(scope="module")
def by_hand(adapter, pictures):
    return [constrained_by_hand(adapter, *prompt) for prompt in prompts_of(pictures)]


@pytest.mark.parametrize("batch_tokens", [1, 1500, 16384])
def test_constrained_choices_equal_one_forward_per_token(adapter, pictures, by_hand, batch_tokens):
    found = reranker_of(adapter, batch_tokens=batch_tokens).choose(prompts_of(pictures))
    assert [choice.number for choice in found] == [number for number, _ in by_hand]
    assert [choice.answer for choice in found] == [f"Ans: ({number})" for number, _ in by_hand]
    np.testing.assert_allclose([choice.probability for choice in found], [p for _, p in by_hand], rtol=1e-3)
    assert [choice.error for choice in found] == [""] * len(found)
    assert len(set(np.round([p for _, p in by_hand], 3))) > 5  # the prompts differ by far more than the tolerance


def test_free_answers_equal_one_forward_per_token(adapter, pictures):
    prompts = prompts_of(pictures)[:5]
    reranker = reranker_of(adapter)
    found = reranker.choose(prompts, "free")
    assert [choice.answer for choice in found] == [free_by_hand(adapter, *prompt) for prompt in prompts]
    assert reranker.counts.unparsable == sum(choice.number is None for choice in found)
    assert reranker.counts.prompts == 5


class TestTrie:
    """Answers as a tree of tokens, without a model."""

    #: as if "Ans: (" were 7 8, digits 1..9 and 0 as they are, and ")" 99
    ANSWERS = tuple([7, 8, *[int(d) for d in str(n)], 99] for n in range(1, 13))

    def test_what_all_answers_begin_with_is_set(self):
        assert ConstrainedAnswer(self.ANSWERS).tokens == [7, 8]
        assert ConstrainedAnswer(self.ANSWERS[:1]).done
        assert ConstrainedAnswer(self.ANSWERS[9:11]).tokens == [7, 8, 1]

    def test_a_shared_first_digit_is_chosen_before_the_second(self):
        answer = ConstrainedAnswer(self.ANSWERS)
        assert answer.allowed() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
        answer.choose(np.array([2.0, 1, 1, 1, 1, 1, 1, 1, 1], dtype=np.float32))
        assert not answer.done
        assert answer.allowed() == [99, 0, 1, 2]  # of 1, 10, 11, 12
        answer.choose(np.log(np.array([1, 4, 2, 1], dtype=np.float32)))
        assert answer.done
        assert answer.index == 9
        share = math.exp(2) / (math.exp(2) + 8 * math.exp(1))
        assert math.exp(answer.log_probability) == pytest.approx(share * 4 / 8, rel=1e-6)

    def test_equal_logits_go_to_the_first(self):
        answer = ConstrainedAnswer(self.ANSWERS)
        answer.choose(np.zeros(9, dtype=np.float32))
        answer.choose(np.array([0, 0, -1, 0], dtype=np.float32))
        assert answer.index == 0

    @given(st.integers(1, 40), st.randoms(use_true_random=False))
    def test_every_walk_ends_in_an_answer(self, n, random):
        answers = [[int(d) for d in str(i)] + [99] for i in range(1, n + 1)]
        answer, steps = ConstrainedAnswer(answers), 0
        while not answer.done:
            answer.choose(np.array([random.random() for _ in answer.allowed()], dtype=np.float32))
            steps += 1
        assert 0 <= answer.index < n
        assert steps <= 2
        assert answers[answer.index][: len(answer.tokens)] == answer.tokens

    @pytest.mark.parametrize("answer", [ConstrainedAnswer(ANSWERS), FreeAnswer(frozenset([3]), 12)])
    def test_what_is_not_finite_fails(self, answer):
        answer.choose(np.array([0.0, np.nan, 1.0], dtype=np.float32))
        assert answer.failed
        assert answer.done

    def test_free_answers_end_with_an_end_token_or_when_they_are_too_long(self):
        free = FreeAnswer(frozenset([3]), 4)
        for token in (1, 2, 3):
            assert not free.done
            free.choose(np.eye(5, dtype=np.float32)[token])
        assert free.done
        long = FreeAnswer(frozenset([3]), 4)
        for _ in range(4):
            assert not long.done
            long.choose(np.eye(5, dtype=np.float32)[1])
        assert long.done
        assert long.tokens == [1, 1, 1, 1]


@pytest.mark.parametrize("batch_tokens", [1, 16384])
def test_numbers_that_begin_alike_are_told_apart_by_a_second_choice(
    adapter, pictures, by_hand, batch_tokens, monkeypatch
):
    import torch

    digits = [adapter.tokenizer(str(digit))["input_ids"][0] for digit in range(10)]
    winner = Counter(number for number, _ in by_hand if number > 1).most_common(1)[0][0]
    head = adapter.model.lm_head
    swapped = torch.nn.Linear(head.in_features, head.out_features, bias=False)
    # where the model would say the digit that it says most often, it now says 1, of 10, 11, 12 or alone
    rows = torch.arange(head.out_features)
    rows[[digits[1], digits[winner]]] = rows[[digits[winner], digits[1]]]
    with torch.no_grad():
        swapped.weight.copy_(head.weight[rows])
    monkeypatch.setitem(adapter.model._modules, "lm_head", swapped)
    prompts = prompts_of(pictures)
    wanted = [constrained_by_hand(adapter, *prompt) for prompt in prompts]
    assert any(
        number in (1, 10, 11, 12) for (_, shown), (number, _) in zip(prompts, wanted, strict=True) if len(shown) > 9
    )
    found = reranker_of(adapter, batch_tokens=batch_tokens).choose(prompts)
    assert [choice.number for choice in found] == [number for number, _ in wanted]
    np.testing.assert_allclose([choice.probability for choice in found], [p for _, p in wanted], rtol=1e-3)


def test_company_and_order_of_prompts_do_not_matter(adapter, pictures, by_hand):
    prompts = prompts_of(pictures)
    reranker = reranker_of(adapter)
    backward = reranker.choose(prompts[::-1])[::-1]
    assert [choice.number for choice in backward] == [number for number, _ in by_hand]
    assert reranker.choose(prompts[3:4])[0].number == by_hand[3][0]


def test_the_shared_instruction_saves_tokens_and_changes_nothing(adapter, pictures, monkeypatch):
    prompts = prompts_of(pictures)
    shared, full = reranker_of(adapter), reranker_of(adapter)
    monkeypatch.setattr(full, "_prefix", None)
    a, b = shared.choose(prompts), full.choose(prompts)
    assert [choice.number for choice in a] == [choice.number for choice in b]
    np.testing.assert_allclose([c.probability for c in a], [c.probability for c in b], rtol=1e-4)
    saved = full.counts.run_tokens - shared.counts.run_tokens
    assert saved == len(prompts) * len(shared._prefix.ids) > 0.2 * full.counts.run_tokens


def test_constrained_answers_of_one_candidate_need_no_model(adapter, monkeypatch):
    reranker = reranker_of(adapter)
    monkeypatch.setattr(type(adapter), "decode", None)
    (choice,) = reranker.choose([(Content("find"), [Content("a dog")])])
    assert (choice.number, choice.answer, choice.probability) == (1, "Ans: (1)", 1.0)


def test_running_out_of_memory_halves_the_batch_for_good(adapter, pictures, by_hand, monkeypatch):
    decode, sizes = type(adapter).decode, []

    def small_memory(self, inputs, positions, mask, cache):
        sizes.append(inputs.shape[0])
        # in the middle of an answer, too
        if inputs.shape[0] > 2 or (inputs.shape[0] == 2 and inputs.shape[1] == 1):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return decode(self, inputs, positions, mask, cache)

    reranker = reranker_of(adapter)
    monkeypatch.setattr(type(adapter), "decode", small_memory)
    found = reranker.choose(prompts_of(pictures))
    assert [choice.number for choice in found] == [number for number, _ in by_hand]
    np.testing.assert_allclose([choice.probability for choice in found], [p for _, p in by_hand], rtol=1e-3)
    assert reranker.counts.retries >= 2
    assert reranker.batch_tokens < 4096
    sizes.clear()
    reranker.choose(prompts_of(pictures))
    assert max(sizes) <= 2


def test_memory_for_not_even_one_prompt_is_its_error(adapter, pictures, monkeypatch):
    reranker = reranker_of(adapter)
    prompts = prompts_of(pictures)[4:6]
    reranker.choose(prompts)  # the instruction is run
    decode = type(adapter).decode

    def small_memory(self, inputs, positions, mask, cache):
        if inputs.shape[1] > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return decode(self, inputs, positions, mask, cache)

    monkeypatch.setattr(type(adapter), "decode", small_memory)
    short, long = reranker.choose(prompts)
    assert short.error == ""
    assert short.number in (1, 2)
    assert long.number is None
    assert "memory" in long.error
    assert reranker.counts.failed == 1


def test_other_errors_of_the_model_are_not_hidden(adapter, monkeypatch):
    reranker = reranker_of(adapter)

    def broken(self, *arguments):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(type(adapter), "decode", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        reranker.choose([(Content("find"), [Content("a dog"), Content("a cat")])])


def test_a_bad_picture_and_bad_numbers_cost_their_own_prompt(adapter, pictures, tmp_path, monkeypatch):
    (tmp_path / "no.png").write_text("no picture")
    good = prompts_of(pictures)[4]
    bad = (Content("find"), [Content("a dog"), Content("", tmp_path / "no.png")])
    large = (Content("find"), [Content("", pictures[7])] * 9)
    reranker = reranker_of(adapter, max_tokens=170)
    found = reranker.choose([bad, good, large])
    assert "cannot be read" in found[0].error
    assert found[1].number in (1, 2)
    assert "max_tokens" in found[2].error
    assert [choice.number for choice in found[::2]] == [None, None]
    assert (reranker.counts.failed, reranker.counts.unparsable) == (2, 0)


@pytest.mark.parametrize("decoding", ["constrained", "free"])
def test_numbers_that_are_not_finite_cost_their_own_prompt(adapter, pictures, monkeypatch, decoding):
    good = prompts_of(pictures)[4]
    reranker = reranker_of(adapter)
    wanted = reranker.choose([good], decoding)[0]
    decode = type(adapter).decode

    def poisoned(self, inputs, positions, mask, cache):
        hidden = decode(self, inputs, positions, mask, cache).clone()
        hidden[0] = float("nan")
        return hidden

    monkeypatch.setattr(type(adapter), "decode", poisoned)
    found = reranker.choose([good, good], decoding)
    assert [choice.error for choice in found] == ["the model's logits are not finite", ""]
    assert math.isnan(found[0].probability)
    assert (found[1].number, found[1].answer) == (wanted.number, wanted.answer)
    assert reranker.counts.failed == 1


def test_cut_contents_are_counted(adapter):
    reranker = reranker_of(adapter, max_tokens=160)
    found = reranker.choose([(Content("find"), [Content("a dog " * 500), Content("an axe " * 500), Content("a cat")])])
    assert found[0].number in (1, 2, 3)
    assert reranker.counts.truncated == reranker.truncated == 2
    reranker.scores(Content("find"), [Content("a dog " * 500)])
    assert reranker.truncated == 3


def test_an_unknown_decoding_is_an_error(adapter):
    with pytest.raises(ConfigurationError, match="beam"):
        reranker_of(adapter).choose([], "beam")


def test_scores_are_the_judges(adapter, pictures):
    query, candidates = prompts_of(pictures)[3]
    judged = PrefixJudge(adapter, batch_size=8).judge(query, candidates)
    found = reranker_of(adapter).scores(query, candidates)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, 1 / (1 + np.exp(np.float64(judged.no) - judged.yes)), rtol=1e-4)


def test_scores_and_choices_share_pictures(adapter, pictures, monkeypatch):
    reranker, compute, n_computed = reranker_of(adapter), type(adapter).image_features, []

    def counted(self, images):
        n_computed.append(len(images))
        return compute(self, images)

    monkeypatch.setattr(type(adapter), "image_features", counted)
    query, candidates = prompts_of(pictures)[1]
    reranker.choose([(query, candidates)])
    reranker.scores(query, candidates)
    assert sum(n_computed) == reranker.features.computed == 5


def test_contents_are_announced_in_their_order(adapter, pictures, monkeypatch):
    reranker, announced = reranker_of(adapter), []
    monkeypatch.setattr(reranker.features, "expect", announced.extend)
    reranker.expect([Content("words"), Content("", pictures[1]), Content("", pictures[0])])
    assert announced == [pictures[1], pictures[0]]


def test_identity_depends_on_model_and_prompt_length(adapter):
    assert reranker_of(adapter).identity() == reranker_of(adapter, batch_tokens=7).identity()
    assert reranker_of(adapter).identity() != reranker_of(adapter, max_tokens=2048).identity()
    assert reranker_of(adapter).identity()["model"] == adapter.fingerprint


def test_a_missing_picture_is_named(adapter, tmp_path):
    reranker = reranker_of(adapter)
    (choice,) = reranker.choose([(Content("", tmp_path / "gone.png"), [Content("a"), Content("b")])])
    assert "gone.png" in choice.error
    with pytest.raises(DataError, match=r"gone\.png"):
        reranker.features.grid(tmp_path / "gone.png")
