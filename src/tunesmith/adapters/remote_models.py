"""What the clients of language-model servers share."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from tunesmith.adapters.http_endpoint import HttpEndpoint
from tunesmith.domain.errors import BaseModelUnavailable
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import Adapter, GenerationParameters


def drawn_seed(parameters: GenerationParameters) -> GenerationParameters:
    """`parameters` with a seed where tokens are drawn and none was set, so that the answer can say which it was."""
    if parameters.seed is None and limits.samples(parameters):
        return replace(parameters, seed=random.getrandbits(63))
    return parameters


def check_base(adapter: Adapter, *, served: Iterable[str], declared: str, server: HttpEndpoint) -> None:
    """Raise BaseModelUnavailable unless the server's model is the base that `adapter` was tuned on.

    `served` are the server's names of its model, `declared` the operator's. A name is the base's own, or a path whose
    last part is the base's fingerprint.
    """
    names = [*served, declared]
    right = {adapter.base_model, adapter.base_fingerprint, adapter.base_fingerprint.removeprefix("hub:")}
    if any(name in right or name.rstrip("/").rpartition("/")[2] == adapter.base_fingerprint for name in names if name):
        return
    raise BaseModelUnavailable(
        f"{server.base_url} serves {' or '.join(name for name in names if name) or 'an unnamed model'}, and "
        f"{adapter.name} was tuned on {adapter.base_model} ({adapter.base_fingerprint[:16]}); serve that base from a "
        f"folder of that name, or say what is served with ?base=NAME in {server.setting.address}",
        reason="ADAPTER_OF_ANOTHER_BASE",
        metadata={"adapter": adapter.name, "base_model": adapter.base_model},
    )
