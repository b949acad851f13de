"""What judging needs of a model; `torch_backend` provides it, tests plant behaviours with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunesmith.ports.language_model import FinishReason, GenerationParameters


@dataclass(frozen=True, slots=True)
class Sampled:
    """One generated completion. `text` has no prompt; it may hold the stop sequence that ended it."""

    text: str
    finish_reason: FinishReason
    num_tokens: int


class JudgedModel(Protocol):
    """One subject of a report: the base, the candidate or the champion."""

    def sample(self, prompts: Sequence[str], parameters: GenerationParameters, *, seed: int) -> list[Sampled]:
        """One completion a prompt, in order. Equal prompts, parameters and seed give equal texts.

        `parameters.seed` is ignored. The caller bounds the number of prompts; all may be generated as one batch.
        """
        ...

    def completion_log_probs(self, rows: Sequence[tuple[str, str]]) -> list[float]:
        """Natural logarithm of the probability of each row's completion given its prompt, summed over its tokens.

        Prompt and completion are tokenised apart, as in training. No end-of-text token is added: a completion that has
        an end (`|<stop>|`) carries it. Unmodified distribution: no temperature, no warper.
        """
        ...
