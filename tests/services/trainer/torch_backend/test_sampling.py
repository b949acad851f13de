"""Sampling and scoring."""

import math
from pathlib import Path

import pytest
import torch
from micro_training import STOP, micro_rows
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from tunesmith_trainer.torch_backend.loading import LoadedModel, load_model
from tunesmith_trainer.torch_backend.rows import TrainingRow, tokenize_row
from tunesmith_trainer.torch_backend.sampling import completion_log_probs, probabilities, sample
from tunesmith_trainer.torch_backend.training import TrainingOutcome

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def tuned(micro_base: Path, undisturbed: TrainingOutcome) -> LoadedModel:
    return load_model(micro_base, adapter=undisturbed.adapter_folder)


def test_samples_do_not_depend_on_the_batch_size(tuned: LoadedModel) -> None:
    prompts = [f"{10**i}->" for i in range(6)]
    one, many = (
        sample(tuned.model, tuned.tokenizer, prompts, max_new_tokens=20, seed=3, batch_size=size) for size in (1, 6)
    )

    assert one == many
    assert one != sample(tuned.model, tuned.tokenizer, prompts, max_new_tokens=20, seed=4)


def test_greedy_samples_equal_those_of_transformers(tuned: LoadedModel) -> None:
    prompts = ["1->", "123->"]

    samples = sample(tuned.model, tuned.tokenizer, prompts, max_new_tokens=12, temperature=0)

    for prompt, ours in zip(prompts, samples, strict=True):
        ids = torch.tensor([tuned.tokenizer(prompt)["input_ids"]])
        theirs = tuned.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
        assert ours.text == tuned.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_text_ends_with_the_stop_sequence_that_ended_it(tuned: LoadedModel) -> None:
    samples = sample(tuned.model, tuned.tokenizer, ["1->"] * 30, max_new_tokens=40, stop=["e"], seed=1)

    stopped = [s for s in samples if s.finish_reason == "stop_sequence"]
    assert stopped
    assert all(s.text.index("e") == len(s.text) - 1 for s in stopped)
    assert all("e" not in s.text for s in samples if s.finish_reason != "stop_sequence")


def test_the_warpers_agree_with_those_of_transformers() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 50, generator=generator) * 3
    history = torch.randint(0, 50, (4, 7), generator=generator)
    seen = torch.zeros(4, 50, dtype=torch.bool).scatter_(1, history, True)
    theirs = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.3)])(history, logits.clone()) / 0.7
    theirs = LogitsProcessorList([TopKLogitsWarper(20), TopPLogitsWarper(0.8)])(history, theirs).softmax(-1)

    ours = probabilities(logits, seen, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.3)

    assert torch.allclose(ours.float(), theirs, atol=1e-6)


def test_log_probabilities_of_a_batch_equal_those_of_single_rows(tuned: LoadedModel) -> None:
    rows = [*micro_rows()[:5], TrainingRow("1->", "a" * 30 + STOP)]

    totals = completion_log_probs(tuned.model, tuned.tokenizer, rows)

    for row, total in zip(rows, totals, strict=True):
        tokens = tokenize_row(tuned.tokenizer, row, end=False)
        with torch.no_grad():
            logits = tuned.model(input_ids=torch.tensor([tokens.input_ids]), use_cache=False).logits[0]
        log_probs = logits.log_softmax(-1)
        expected = sum(log_probs[i - 1, label].item() for i, label in enumerate(tokens.labels) if label >= 0)
        assert math.isclose(total, expected, rel_tol=1e-4)
