"""The language model: text in, text out, with parameters as text-generation-inference names them. Async."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["length", "eos_token", "stop_sequence"]


@dataclass(frozen=True, slots=True)
class GenerationParameters:
    """Sampling parameters. None leaves a warper off. Limits are those of text-generation-inference 3.3."""

    max_new_tokens: int = 32
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    """Taken off a token's score for every time that it stands in the answer so far. text-generation-inference counts
    the prompt too, and divides by the length."""
    do_sample: bool = False
    """Greedy when False and no warper is set; a warper turns sampling on, as in text-generation-inference."""
    seed: int | None = None
    """The same seed, prompt, parameters and model give the same text."""
    stop: tuple[str, ...] = ()
    return_full_text: bool = False
    truncate: int | None = None
    """Keep only the last so many prompt tokens."""
    json_schema: str | None = None
    """A JSON Schema, as JSON text: the answer is one JSON document that it allows. `ports.json_schemas` has the limits.

    A document that does not fit into `max_new_tokens` ends with `length` and is half a document; what serves answers
    to people makes an error of it.
    """


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `logprob` is a natural logarithm under the unmodified distribution."""

    id: int
    text: str
    logprob: float
    special: bool


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished generation. `text` includes the stop sequence that ended it, as text-generation-inference does."""

    text: str
    finish_reason: FinishReason
    num_generated_tokens: int
    seed: int | None
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """One token of a stream; the last one carries the whole `generation`."""

    token: Token
    generation: Generation | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """Which adapter answers. `hash` is the SHA-256 of its weights, `key` where its files lie in the store."""

    name: str
    hash: str
    key: str
    base_model: str
    base_fingerprint: str


class LanguageModel(Protocol):
    """Generates text with a base model and one of several adapters. All methods are coroutines of one event loop."""

    async def load(self, adapter: Adapter) -> None:
        """Make `adapter` ready to answer. Idempotent; running requests of others are not disturbed.

        Raises BaseModelUnavailable, NotFound (adapter files missing), DataLoss (hash differs).
        """
        ...

    async def unload(self, name: str) -> None:
        """Forget an adapter once its running requests have ended. No-op when it is not loaded."""
        ...

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        """Answer `prompt`. `adapter` None asks the base.

        NotFound when the adapter is not loaded: never a silent answer from the base. InvalidInput names the
        parameter, the value and the limit. Cancelling the coroutine frees the slot.
        """
        ...

    def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncIterator[StreamChunk]:
        """The same token by token; closing the iterator stops the generation."""
        ...

    async def close(self) -> None:
        """Stop the model and free its memory."""
        ...


class DescribedLanguageModel(LanguageModel, Protocol):
    """A language model that can say which model answers."""

    async def describe(self) -> str:
        """The model's name, with its revision where that is known; what is recorded as the writer of a text."""
        ...
