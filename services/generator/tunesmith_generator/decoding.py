"""From a request to prompts and seeds, and from generated text to an answer. Pure, but for unset seeds."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tunesmith.domain.errors import InvalidInput
from tunesmith.ports import json_schemas
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import FinishReason, Generation, GenerationParameters, Token
from tunesmith.recipes.base import Parsed, Recipe
from tunesmith_generator.known import KnownIdentities
from tunesmith_generator.reload import Served

RetryReason = Literal["", "invalid", "known"]

NUM_PROMPT_SEEDS = 2**63
"""Prompt seeds wrap around here: what an int64 field carries, and what fits the recipes' 19 digits."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What to generate. At most one of `inputs` and `prompt`; with neither, `seed` makes the inputs."""

    recipe: str
    inputs: Mapping[str, str] | None = None
    """The recipe's inputs, such as `{"seed": "7"}` or `{"title": "..."}`."""
    prompt: str | None = None
    """A raw prompt, given to the model as it is; its answer is parsed but never tried again."""
    seed: int | None = None
    """Seed of the sampling, and of the inputs when there are none. Unset: random, and reported in the answer."""
    model: str = ""
    """Empty or `champion`, `base`, or the id of a model version."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Generation parameters that differ from the recipe's, by name; `seed` here is the sampling's only."""
    max_retries: int | None = None
    """Lowers the recipe's `max_retries_known`; 0 takes the first answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A parsed answer with everything that is needed to get it again, and to trace it to its sources."""

    recipe: str
    answer: str
    text: str
    """What the model wrote, without the prompt unless `return_full_text` was set."""
    prompt: str
    inputs: Mapping[str, str]
    """Empty for a raw prompt."""
    valid: bool
    reason: str
    """Why the answer is not valid; empty when it is."""
    known: bool
    """Whether the answer stands in the training set `compared_with`."""
    compared_with: str
    """Id of the dataset whose training split was searched; empty when there is none."""
    attempts: int
    """How many answers were generated, this one included."""
    model_version: str
    """Id of the model version, or `base`."""
    adapter_hash: str
    """Hex SHA-256 of the adapter's weights; empty for the base."""
    base_model: str
    base_fingerprint: str
    seed: int | None
    """Seed of the sampling; None when the answer was decoded greedily."""
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_generated_tokens: int


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """One token of a streamed attempt."""

    token: Token
    attempt: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """The answer streamed so far is given up for `reason`; clear it. `attempt` numbers the one that follows."""

    attempt: int
    reason: RetryReason


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of the model. `number` counts from 1."""

    number: int
    prompt: str
    inputs: Mapping[str, str]
    parameters: GenerationParameters


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request: what every attempt asks, and how many there may be."""

    recipe: Recipe
    prompt: str | None
    inputs: Mapping[str, str]
    prompt_seed: int | None
    """Set when the inputs are made from a seed, so that the next attempt asks the next one."""
    parameters: GenerationParameters
    sampling_seed: int
    max_attempts: int
    return_full_text: bool
    own_schema: bool = False
    """The request brought a JSON Schema: the document itself is the answer, whatever the recipe's format is."""

    def attempt(self, number: int) -> Attempt:
        """The `number`-th attempt: seeds grow by one with each."""
        prompt, inputs = self.prompt_of(number)
        seed = (self.sampling_seed + number - 1) % (limits.MAX_SEED + 1)
        return Attempt(number, prompt, inputs, replace(self.parameters, seed=seed))

    def prompt_of(self, number: int) -> tuple[str, Mapping[str, str]]:
        """The prompt of the `number`-th attempt, and its inputs."""
        inputs = self.inputs
        if self.prompt_seed is not None:
            inputs = self.recipe.inputs_of_seed((self.prompt_seed + number - 1) % NUM_PROMPT_SEEDS)
        return (self.prompt if self.prompt is not None else self.recipe.prompt(inputs)), inputs

    def attempts(self) -> Iterator[Attempt]:
        """Every attempt that the request allows, in order; at least one."""
        return (self.attempt(number) for number in range(1, self.max_attempts + 1))


def plan_of(request: GenerateRequest, recipe: Recipe, *, max_new_tokens_limit: int) -> Plan:
    """Check a request and fix its seeds; InvalidInput names the field, the value and the limit."""
    if request.inputs is not None and request.prompt is not None:
        raise InvalidInput("a request has inputs or a prompt, not both", metadata={"field": "prompt"})
    if request.seed is not None and not 0 <= request.seed < NUM_PROMPT_SEEDS:
        raise InvalidInput(
            f"seed={request.seed} must be between 0 and {NUM_PROMPT_SEEDS - 1}",
            metadata={"field": "seed", "value": str(request.seed)},
        )
    parameters = limits.merged(recipe.generation, request.overrides)
    limits.check(parameters, max_new_tokens_limit=max_new_tokens_limit)
    own_schema = bool(parameters.json_schema)
    if parameters.json_schema is None and request.prompt is None and recipe.answer_schema:
        parameters = replace(parameters, json_schema=recipe.answer_schema)
    if parameters.json_schema:
        json_schemas.checked(parameters.json_schema)
    elif parameters.json_schema is not None:
        # An empty one leaves the recipe's off.
        parameters = replace(parameters, json_schema=None)
    random_seed = random.getrandbits(31)

    inputs: Mapping[str, str] = {}
    prompt_seed = None
    if request.inputs is not None:
        inputs = dict(request.inputs)
        prompt_seed = _seed_of(inputs, recipe)
    elif request.prompt is None:
        prompt_seed = random_seed if request.seed is None else request.seed

    retries = 0
    varies = prompt_seed is not None or limits.samples(parameters)
    if request.prompt is None and not own_schema and varies:
        retries = recipe.max_retries_known
        if request.max_retries is not None:
            retries = max(0, min(retries, request.max_retries))
    given = (parameters.seed, request.seed)
    plan = Plan(
        recipe=recipe,
        prompt=request.prompt,
        inputs=inputs,
        prompt_seed=prompt_seed,
        parameters=replace(parameters, return_full_text=False) if parameters.return_full_text else parameters,
        sampling_seed=next((seed for seed in given if seed is not None), random_seed),
        max_attempts=1 + retries,
        return_full_text=parameters.return_full_text,
        own_schema=own_schema,
    )
    limits.check_prompt(plan.prompt_of(1)[0])
    return plan


def answer_of(
    generation: Generation, attempt: Attempt, *, plan: Plan, served: Served, known: KnownIdentities
) -> Answer:
    """Read what the model wrote."""
    if plan.own_schema:
        parsed, is_known = Parsed(generation.text, valid=True), False
    else:
        parsed = plan.recipe.read(attempt.prompt, generation.text, generation.finish_reason)
        is_known = plan.recipe.identity(parsed.answer) in known.identities
    return Answer(
        recipe=plan.recipe.name,
        answer=parsed.answer,
        text=attempt.prompt + generation.text if plan.return_full_text else generation.text,
        prompt=attempt.prompt,
        inputs=attempt.inputs,
        valid=parsed.valid,
        reason=parsed.reason,
        known=is_known,
        compared_with=known.dataset_id,
        attempts=attempt.number,
        model_version=served.version,
        adapter_hash=served.adapter.hash,
        base_model=served.adapter.base_model,
        base_fingerprint=served.adapter.base_fingerprint,
        seed=generation.seed,
        finish_reason=generation.finish_reason,
        num_prompt_tokens=generation.num_prompt_tokens,
        num_generated_tokens=generation.num_generated_tokens,
    )


def retry_reason(answer: Answer) -> RetryReason:
    """Why another answer would be better; empty when it is fine."""
    return "invalid" if not answer.valid else "known" if answer.known else ""


def _seed_of(inputs: Mapping[str, str], recipe: Recipe) -> int | None:
    """The seed that makes just these inputs, if there is one."""
    text = inputs.get("seed", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) < NUM_PROMPT_SEEDS):
        return None
    return int(text) if dict(recipe.inputs_of_seed(int(text))) == dict(inputs) else None
