"""Served answers are the judge's: same tokens, close log-probabilities, and another token only at a near-tie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.domain.parity import (
    LEAST_TOLERANCE,
    Probe,
    Probes,
    ProbeToken,
    ServedAnswers,
    ServedToken,
    compare,
)

HASH = "ab" * 32


def token(number: int, *, margin: float = 3.0) -> ProbeToken:
    """Token `number`, likelier than its runner-up by `margin`."""
    return ProbeToken(number, f"t{number}", -0.5, 100 + number, -0.5 - margin)


END = ProbeToken(0, "", -0.1, 9, -4.0)
PROBES = Probes(
    probes=(Probe("a prompt", (token(1), token(2), token(3), END)), Probe("b", (token(4), token(5), token(6), END))),
    max_new_tokens=8,
    stop=(),
    noise=2e-6,
    half_noise=0.01,
)


def served(probes: Probes = PROBES, *, off: float = 0.0) -> ServedAnswers:
    """The judge's own answers, each log-probability off by `off`."""
    answers = tuple(tuple(ServedToken(t.id, t.text, t.logprob + off) for t in p.tokens) for p in probes.probes)
    return ServedAnswers(answers, HASH, "embedded at here", "float32")


def changed(answers: ServedAnswers, place: tuple[int, int], given: ServedToken) -> ServedAnswers:
    prompt, position = place
    row = list(answers.answers[prompt])
    row[position] = given
    return replace(answers, answers=(*answers.answers[:prompt], tuple(row), *answers.answers[prompt + 1 :]))


def check(answers: ServedAnswers, probes: Probes = PROBES):
    return compare(probes, answers, version="mv-1", adapter_hash=HASH, at="2026-01-01T00:00:00Z")


def test_equal_answers_agree_and_the_line_counts_them() -> None:
    found = check(served(off=2e-5))
    assert found.agrees
    assert (found.num_prompts, found.num_agreeing, found.num_tokens, found.num_compared) == (2, 2, 8, 8)
    assert found.largest_difference == pytest.approx(2e-5)
    assert found.detail == "served = judged: 2 of 2 prompts, largest difference 2e-05 (tolerance 0.001)"


def test_a_log_probability_outside_the_tolerance_is_the_first_difference() -> None:
    found = check(served(off=2 * LEAST_TOLERANCE))
    assert not found.agrees
    assert "prompt 1 ('a prompt'): token 1: expected 't1' (id 1, log-probability -0.5000)" in found.detail
    assert "got 't1' (id 1, log-probability -0.4980)" in found.detail


def test_a_log_probability_that_is_not_a_number_differs() -> None:
    assert not check(changed(served(), (0, 1), ServedToken(2, "t2", float("nan")))).agrees


def test_another_token_differs_and_is_told_with_prompt_and_place() -> None:
    found = check(changed(served(), (1, 2), ServedToken(106, "t106", -3.5)))
    assert not found.agrees
    assert found.num_agreeing == 1
    assert "prompt 2 ('b'): token 3: expected 't6'" in found.detail


def near_tie(margin: float) -> Probes:
    tie = token(3, margin=margin)
    return replace(PROBES, probes=(replace(PROBES.probes[0], tokens=(token(1), token(2), tie, END)), PROBES.probes[1]))


def swapped(probes: Probes) -> ServedAnswers:
    tie = probes.probes[0].tokens[2]
    after = ServedToken(77, "other", -0.2)
    answers = changed(served(probes), (0, 2), ServedToken(tie.runner_up, "t103", tie.runner_up_logprob))
    return changed(answers, (0, 3), after)


def test_the_runner_up_of_a_near_tie_agrees_and_ends_the_comparison_of_its_prompt() -> None:
    probes = near_tie(1.9 * LEAST_TOLERANCE)
    found = check(swapped(probes), probes)
    assert found.agrees
    assert found.num_compared == 6, "two tokens before the tie, and the other prompt's four"


def test_the_runner_up_of_a_clear_choice_differs() -> None:
    probes = near_tie(2.1 * LEAST_TOLERANCE)
    assert not check(swapped(probes), probes).agrees


def test_a_third_token_differs_at_a_near_tie_too() -> None:
    probes = near_tie(1e-6)
    assert not check(changed(served(probes), (0, 2), ServedToken(55, "third", -0.5)), probes).agrees


def test_answers_that_part_at_their_first_tokens_say_too_little() -> None:
    tie = replace(PROBES.probes[0], tokens=(token(1, margin=0.0), token(2), token(3), END))
    probes = replace(PROBES, probes=(tie, tie, PROBES.probes[1]))
    answers = served(probes)
    for prompt in (0, 1):
        answers = changed(answers, (prompt, 0), ServedToken(101, "t101", -0.5))
    found = check(answers, probes)
    assert not found.agrees
    assert "only 4 of 12 tokens could be compared" in found.detail


@pytest.mark.parametrize(("number_format", "agrees"), [("float32", False), ("bfloat16", True), ("", True)])
def test_a_server_in_half_precision_gets_the_noise_of_half_precision(number_format: str, agrees: bool) -> None:
    answers = replace(served(off=0.03), number_format=number_format)
    assert check(answers).agrees is agrees


def test_a_server_that_leaves_the_end_token_out_agrees() -> None:
    short = replace(served(), answers=tuple(answer[:-1] for answer in served().answers))
    assert check(short).agrees


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (replace(served(), answers=tuple(a[:-2] for a in served().answers)), "got the end"),
        (replace(served(), answers=tuple((*a, a[0]) for a in served().answers)), "expected the end, got 't1'"),
        (replace(served(), answers=served().answers[:1]), "1 answers came for 2 prompts"),
        (replace(served(), adapter_hash="cd" * 32), "the adapter that answers has SHA-256 cdcd"),
        (changed(served(), (0, 0), ServedToken(None, "t1", -0.5)), "the server tells no token ids"),
    ],
    ids=["cut short", "too long", "prompt missing", "another adapter", "no ids"],
)
def test_answers_of_another_shape_or_adapter_differ(answers: ServedAnswers, words: str) -> None:
    found = check(answers)
    assert not found.agrees
    assert words in found.detail


def test_probes_come_back_from_their_json() -> None:
    assert Probes.from_json(PROBES.to_json()) == PROBES
