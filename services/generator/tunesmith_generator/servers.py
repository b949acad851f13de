"""Clients of the servers that a backend setting names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunesmith.adapters.http_endpoint import HttpEndpoint, Limits, Setting
from tunesmith.adapters.openai_language_model import OpenAILanguageModel
from tunesmith.adapters.tgi_language_model import TgiLanguageModel
from tunesmith.ports.store import Store
from tunesmith_generator.backends import KEY_SETTING, SETTING, BackendUrl, SharedAdapterFolder
from tunesmith_generator.runners.remote import Server

LIMITS = Limits(connect_timeout_s=2.0, total_timeout_s=3600.0, max_reply_bytes=8 << 20, attempts=1)
"""The runner tries again elsewhere; a call's own deadline is the caller's."""


def connector(
    backend: BackendUrl, *, store: Store, cache_dir: Path, api_key: str, limits: Limits = LIMITS
) -> Callable[[str], Server]:
    """Makes the client of one address."""
    folder = None
    if backend.adapters:
        folder = SharedAdapterFolder(
            Path(backend.adapters), there=backend.adapters_there, store=store, cache_dir=cache_dir / "adapters"
        )

    def connect(url: str) -> Server:
        endpoint = HttpEndpoint(url, api_key=api_key, limits=limits, setting=Setting(SETTING, KEY_SETTING))
        if backend.kind == "tgi":
            return TgiLanguageModel(endpoint, base=backend.base)
        return OpenAILanguageModel(
            endpoint, model=backend.model, api="completions", tokens=True, adapters=folder, base=backend.base
        )

    return connect
