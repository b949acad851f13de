"""Choosing the next token of one row. B rows, V vocabulary entries, S tokens so far."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunesmith.ports.language_model import GenerationParameters


class Sampler:
    """Chooses the tokens of one request, alone: neither its numbers nor its random draws depend on other rows.

    The draws come from a CPU generator, one a token, whatever device the model is on.
    """

    def __init__(self, parameters: GenerationParameters, *, seed: int | None) -> None:
        """`seed` None chooses the likeliest token."""
        self._parameters = parameters
        self._generator: torch.Generator | None = None
        if seed is not None:
            # Generators take seeds as int64; the upper half of the uint64 range wraps around onto the negative ones.
            self._generator = torch.Generator().manual_seed(seed if seed < 2**63 else seed - 2**64)

    def choose(
        self,
        logits_V: torch.Tensor,
        *,
        seen: Sequence[int],
        answer: Sequence[int] = (),
        allowed_V: torch.Tensor | None = None,
    ) -> int:
        """The next token id for float32 `logits_V`, one that is `allowed_V`.

        The penalties hold against it the ids in `seen` (prompt and answer: repetition) and in `answer` (frequency).
        """
        scores_V = logits_V
        if self._parameters.repetition_penalty is not None:
            scores_V = _penalise(
                scores_V, torch.tensor(seen, device=scores_V.device), self._parameters.repetition_penalty
            )
        if self._parameters.frequency_penalty is not None and answer:
            counts_V = torch.bincount(torch.tensor(answer, device=scores_V.device), minlength=scores_V.numel())
            scores_V = scores_V - self._parameters.frequency_penalty * counts_V
        if allowed_V is not None:
            scores_V = scores_V.masked_fill(~allowed_V, -torch.inf)
        if self._generator is None:
            return int(scores_V.argmax())
        probabilities_V = torch.softmax(_warp(scores_V, self._parameters), dim=-1, dtype=torch.float64)
        cumulated_V = probabilities_V.cumsum(0)
        draw = torch.rand((), generator=self._generator, dtype=torch.float64).to(cumulated_V.device)
        # Scaled by the last entry, so that rounding in the sum cannot leave the draw beyond it; right=True keeps a
        # token of probability 0 from being chosen by a draw of exactly 0.
        chosen = int(torch.searchsorted(cumulated_V, draw * cumulated_V[-1], right=True))
        return min(chosen, int(probabilities_V.nonzero()[-1]))


def _penalise(scores_V: torch.Tensor, seen_S: torch.Tensor, penalty: float) -> torch.Tensor:
    """Keskar et al. 2019 (CTRL): scores of tokens already seen are divided by `penalty`, negative ones multiplied."""
    seen_scores_S = scores_V[seen_S]
    penalised_S = torch.where(seen_scores_S < 0, seen_scores_S * penalty, seen_scores_S / penalty)
    return scores_V.scatter(0, seen_S, penalised_S)


def _warp(scores_V: torch.Tensor, parameters: GenerationParameters) -> torch.Tensor:
    """Temperature, top k, top p, typical p, in the order of transformers' `generate`."""
    if parameters.temperature is not None:
        scores_V = scores_V / parameters.temperature
    if parameters.top_k is not None:
        kth = torch.topk(scores_V, min(parameters.top_k, scores_V.numel())).values[-1]
        scores_V = scores_V.masked_fill(scores_V < kth, -torch.inf)
    if parameters.top_p is not None:
        sorted_V, order_V = scores_V.sort(descending=True)
        scores_V = _keep_mass(scores_V, sorted_V, order_V, parameters.top_p)
    if parameters.typical_p is not None:
        # Meister et al. 2022: tokens whose surprise is closest to the entropy come first.
        log_probabilities_V = torch.log_softmax(scores_V, dim=-1)
        entropy = -(log_probabilities_V.exp() * log_probabilities_V).nansum()
        order_V = (-log_probabilities_V - entropy).abs().argsort()
        scores_V = _keep_mass(scores_V, scores_V[order_V], order_V, parameters.typical_p)
    return scores_V


def _keep_mass(scores_V: torch.Tensor, sorted_V: torch.Tensor, order_V: torch.Tensor, mass: float) -> torch.Tensor:
    """Keep the first tokens of `order_V` until their probabilities reach `mass`; at least one stays."""
    before_V = torch.softmax(sorted_V, dim=-1).cumsum(0) - torch.softmax(sorted_V, dim=-1)
    dropped_V = torch.zeros_like(order_V, dtype=torch.bool).scatter(0, order_V, before_V >= mass)
    dropped_V[order_V[0]] = False
    return scores_V.masked_fill(dropped_V, -torch.inf)
