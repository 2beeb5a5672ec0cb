"""Sampling against transformers' own `generate`, and that an answer does not depend on its batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from aitrain.data.encoding import load_tokenizer
from aitrain.ml.loading import load_causal_lm, model_location
from aitrain.ml.sampling import Sampling, pick, sample

FAMILIES = ("sample:tiny-llama", "sample:tiny-mistral", "sample:tiny-gemma2", "sample:tiny-qwen3", "sample:tiny-lfm2")
LENGTHS = (3, 70, 9, 17, 50, 5)
SEEDS = [(1, number) for number in range(len(LENGTHS))]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    path = request.param
    return load_causal_lm(path, revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(model_location(FAMILIES[0]), None, trust_remote_code=False, allow_downloads=False)


def prompts() -> list[list[int]]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(5, 2000, (length,), generator=draw).tolist() for length in LENGTHS]


def test_greedy_answers_are_those_of_generate(model: Any, tokenizer: Any) -> None:
    ends = tuple(range(100, 200))
    settings = Sampling(40, temperature=0, end_ids=ends)
    found = sample(model, tokenizer, prompts(), SEEDS, settings, chunk_size=4)
    assert found is not None
    for prompt, answer in zip(prompts(), found, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False, use_cache=True,
            eos_token_id=list(ends), pad_token_id=0,
        )  # fmt: skip
        assert answer.ids == whole[0, len(prompt) :].tolist()
        assert answer.ended == (answer.ids[-1] in ends)


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_an_answer_does_not_depend_on_the_others(model: Any, tokenizer: Any, chunk_size: int) -> None:
    settings = Sampling(24, top_k=300, top_p=0.95, end_ids=tuple(range(100, 400)))
    together = sample(model, tokenizer, prompts(), SEEDS, settings, chunk_size=16)
    apart = sample(model, tokenizer, prompts(), SEEDS, settings, chunk_size=chunk_size)
    assert together == apart
    assert together is not None
    assert len({len(answer.ids) for answer in together}) > 2, "rows must end at different times"
    other = sample(model, tokenizer, prompts(), [(2, number) for number in range(6)], settings, chunk_size=16)
    assert other != together


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3])
    draws = torch.from_numpy(np.random.default_rng(0).random(20000))
    counts = Counter(pick(probabilities.expand(len(draws), 4), draws).tolist())
    assert counts[1] == 0
    for token, wanted in enumerate(probabilities.tolist()):
        assert abs(counts[token] / len(draws) - wanted) < 0.02
    edges = pick(probabilities.expand(3, 4), torch.tensor([0.0, 0.5, 1 - 1e-12], dtype=torch.float64))
    assert edges.tolist() == [0, 2, 3], "a token without probability is never drawn, not at the edge either"


def test_top_k_and_top_p_leave_the_others_out(tokenizer: Any) -> None:
    model = load_causal_lm(FAMILIES[0], revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False)
    prompt = prompts()[0]
    logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    best = set(logits.topk(3).indices.tolist())
    seeds = [(number,) for number in range(200)]
    drawn = sample(model, tokenizer, [prompt] * 200, seeds, Sampling(1, top_k=3), chunk_size=200)
    assert drawn is not None
    assert {answer.ids[0] for answer in drawn} == best
    nucleus = sample(model, tokenizer, [prompt] * 200, seeds, Sampling(1, top_p=1e-6), chunk_size=200)
    assert nucleus is not None
    assert {answer.ids[0] for answer in nucleus} == {int(logits.argmax())}
    cold = sample(model, tokenizer, [prompt] * 200, seeds, Sampling(1, temperature=1e-4), chunk_size=200)
    assert cold is not None
    assert {answer.ids[0] for answer in cold} == {int(logits.argmax())}


def test_a_stop_string_ends_an_answer_also_across_tokens(tokenizer: Any) -> None:
    model = load_causal_lm(FAMILIES[0], revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False)
    free = sample(model, tokenizer, prompts(), SEEDS, Sampling(30), chunk_size=8)
    assert free is not None
    text = tokenizer.decode(free[0].ids)
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    stopped = sample(model, tokenizer, prompts(), SEEDS, Sampling(30, stop_strings=(stop,)), chunk_size=8)
    assert stopped is not None
    assert stopped[0].ended
    assert stop in tokenizer.decode(stopped[0].ids)
    assert stopped[0].ids == free[0].ids[: len(stopped[0].ids)]
    assert stop not in tokenizer.decode(stopped[0].ids[:-1])


def test_an_interrupted_sampling_gives_nothing(tokenizer: Any) -> None:
    model = load_causal_lm(FAMILIES[0], revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False)
    calls = iter([False, False, True])
    found = sample(
        model, tokenizer, prompts(), SEEDS, Sampling(30), chunk_size=8, interrupted=lambda: next(calls, True)
    )
    assert found is None
    assert model.training is False
