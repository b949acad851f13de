"""What coroutines and the engine thread hand each other. Free of PyTorch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunesmith.ports.language_model import GenerationParameters, StreamChunk

if TYPE_CHECKING:
    from tunesmith_generator.runners.torch_engine.grammar import Grammar

ResolveBase = Callable[[str, str], Path | str]
"""(base_model, base_fingerprint) -> a local folder or a Hub id; raises BaseModelUnavailable. May take minutes."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Bounds and arithmetic of the embedded engine; `tunesmith_generator.settings` says what each means."""

    max_batch_size: int = 16
    queue_limit: int = 128
    max_new_tokens_limit: int = 1024
    max_prompt_tokens: int = 1024
    max_loaded_bases: int = 2
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    num_threads: int = 0


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way through the engine thread. Its chunks, or the error that ended it, come to `mailbox`."""

    prompt: str
    parameters: GenerationParameters
    adapter: str | None
    every_token: bool
    """False delivers the last chunk only, which spares the event loop a wake-up a token."""
    loop: asyncio.AbstractEventLoop
    grammar: Grammar | None = None
    """Set for an answer with a JSON Schema."""
    mailbox: asyncio.Queue[StreamChunk | Exception] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    """Set by the event loop, read by the engine between steps."""

    def deliver(self, item: StreamChunk | Exception) -> None:
        """Put an item into the mailbox; called by the engine thread."""
        if isinstance(item, StreamChunk) and item.generation is None and not self.every_token:
            return
        # A loop that has closed has nobody left to read the answer.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.mailbox.put_nowait, item)
