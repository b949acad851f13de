"""A language model of a few lines that keeps the port's contract: one token a character, answers from a function."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from tunesmith.domain.errors import NotFound
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import (
    Adapter,
    FinishReason,
    Generation,
    GenerationParameters,
    StreamChunk,
    Token,
)

END_ID = 0


@dataclass(eq=False)
class FakeLanguageModel:
    """`answer(adapter, prompt, seed)` gives the whole text; the adapter is None for the base, the seed for greedy."""

    answer: Callable[[Adapter | None, str, int | None], str]
    num_slots: int = 16
    max_new_tokens_limit: int = 512
    load_delay_s: float = 0.0
    num_loads: Counter[str] = field(default_factory=Counter)
    num_unloads: Counter[str] = field(default_factory=Counter)
    num_running: Counter[str | None] = field(default_factory=Counter)
    refuse_to_load: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loaded: dict[str, Adapter] = {}
        self._slots = asyncio.Semaphore(self.num_slots)
        self._num_seeds = 0

    async def load(self, adapter: Adapter) -> None:
        if adapter.name in self.loaded:
            return
        await asyncio.sleep(self.load_delay_s)
        if error := self.refuse_to_load.get(adapter.name):
            raise error
        self.num_loads[adapter.name] += 1
        self.loaded[adapter.name] = adapter

    async def unload(self, name: str) -> None:
        if self.loaded.pop(name, None) is None:
            return
        self.num_unloads[name] += 1
        while self.num_running[name]:
            await asyncio.sleep(0)

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        async with aclosing(self.stream(prompt, parameters, adapter=adapter)) as chunks:
            async for chunk in chunks:
                if chunk.generation is not None:
                    return chunk.generation
        raise AssertionError

    async def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncGenerator[StreamChunk, None]:
        limits.check_prompt(prompt)
        limits.check(parameters, max_new_tokens_limit=self.max_new_tokens_limit)
        if adapter is not None and adapter not in self.loaded:
            raise NotFound(f"adapter {adapter} is not loaded")
        loaded = self.loaded[adapter] if adapter is not None else None
        self.num_running[adapter] += 1
        try:
            async with self._slots:
                async for chunk in self._tokens(prompt, parameters, loaded):
                    yield chunk
        finally:
            self.num_running[adapter] -= 1

    async def close(self) -> None:
        self.loaded.clear()

    async def _tokens(
        self, prompt: str, parameters: GenerationParameters, adapter: Adapter | None
    ) -> AsyncGenerator[StreamChunk, None]:
        self._num_seeds += 1
        seed = self._num_seeds if parameters.seed is None else parameters.seed
        drawn = seed if limits.samples(parameters) else None
        kept = prompt[-(parameters.truncate or 0) :]
        written = self.answer(adapter, kept, drawn)
        text = ""
        for count in range(1, parameters.max_new_tokens + 1):
            await asyncio.sleep(0)
            ended = count > len(written)
            character = "" if ended else written[count - 1]
            text += character
            reason: FinishReason | None = None
            if ended:
                reason = "eos_token"
            elif text.endswith(parameters.stop) and parameters.stop:
                reason = "stop_sequence"
            elif count == parameters.max_new_tokens:
                reason = "length"
            full = prompt + text if parameters.return_full_text else text
            generation = Generation(full, reason, count, drawn, len(kept)) if reason else None
            token = (
                Token(END_ID, "</s>", -0.1, True)
                if ended
                else Token(ord(character), character, -ord(character) / 100, False)
            )
            yield StreamChunk(token, generation)
            if generation:
                return
