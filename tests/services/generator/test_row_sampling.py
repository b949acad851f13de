from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tunesmith.ports.language_model import GenerationParameters

NUM_VOCABULARY = 50


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_k": 500},
        {"top_p": 0.8},
        {"top_p": 0.01},
        {"typical_p": 0.6},
        {"repetition_penalty": 1.4},
        {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "typical_p": 0.8, "repetition_penalty": 0.8},
    ],
)
def test_the_chosen_tokens_are_spread_as_transformers_would_spread_them(changes: dict[str, Any]) -> None:
    """The distribution is compared entry by entry with that of transformers' own logits processors."""
    import torch
    from transformers import LogitsProcessorList
    from transformers.generation import logits_process as hf

    from tunesmith_generator.runners.torch_engine import sampling

    logits_V = torch.randn(NUM_VOCABULARY, generator=torch.Generator().manual_seed(3)) * 2
    seen = [1, 4, 4, 7]
    processors: list[Any] = []
    if penalty := changes.get("repetition_penalty"):
        processors.append(hf.RepetitionPenaltyLogitsProcessor(penalty))
    if temperature := changes.get("temperature"):
        processors.append(hf.TemperatureLogitsWarper(temperature))
    if top_k := changes.get("top_k"):
        processors.append(hf.TopKLogitsWarper(top_k))
    if top_p := changes.get("top_p"):
        processors.append(hf.TopPLogitsWarper(top_p))
    if typical_p := changes.get("typical_p"):
        processors.append(hf.TypicalLogitsWarper(typical_p))
    expected_V = LogitsProcessorList(processors)(torch.tensor([seen]), logits_V[None].clone())[0].softmax(0)

    parameters = GenerationParameters(do_sample=True, **changes)
    scores_V = logits_V
    if penalty is not None:
        scores_V = sampling._penalise(scores_V, torch.tensor(seen), penalty)
    actual_V = sampling._warp(scores_V, parameters).softmax(0)
    torch.testing.assert_close(actual_V, expected_V)

    sampler = sampling.Sampler(parameters, seed=5)
    drawn = Counter(sampler.choose(logits_V, seen=seen) for _ in range(4000))
    shares_V = torch.tensor([drawn[i] / 4000 for i in range(NUM_VOCABULARY)])
    # Five standard errors of a share of 4,000 draws.
    assert ((shares_V - expected_V).abs() <= 5 * (expected_V / 4000).sqrt() + 1e-9).all()


def test_greedy_takes_the_likeliest() -> None:
    import torch

    from tunesmith_generator.runners.torch_engine.sampling import Sampler

    sampler = Sampler(GenerationParameters(), seed=None)

    assert sampler.choose(torch.tensor([0.1, 3.0, 2.9]), seen=[]) == 1


def test_a_frequency_penalty_is_taken_off_once_for_every_time_a_token_was_written() -> None:
    import torch

    from tunesmith_generator.runners.torch_engine import sampling

    logits_V = torch.tensor([3.0, 2.4, 0.0])
    sampler = sampling.Sampler(GenerationParameters(frequency_penalty=0.5), seed=None)

    chosen = [sampler.choose(logits_V, seen=[0] * 9 + answer, answer=answer) for answer in ([], [0], [0, 0])]

    assert chosen == [0, 0, 1]
