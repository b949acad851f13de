"""The adapters that a process works with, chosen by the settings' URLs."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.adapters.subprocess_launcher import SubprocessLauncher
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain.errors import InvalidInput, InvalidSettings, Unavailable
from tunesmith.jobs.state import JobStore
from tunesmith.ports.bus import EventBus
from tunesmith.ports.clock import Clock
from tunesmith.ports.language_model import DescribedLanguageModel
from tunesmith.ports.launcher import Launcher
from tunesmith.ports.replicas import Replicas
from tunesmith.ports.serving import ServingBackend
from tunesmith.ports.store import Store
from tunesmith.settings import TRACING_VARIABLES, Settings, read_settings
from tunesmith.telemetry import is_tracing, use_tracing

if TYPE_CHECKING:
    from tunesmith.adapters.generator_serving import GeneratorServing
    from tunesmith.adapters.minio_store import MinioStore

log = logging.getLogger(__name__)

_GRPC = re.compile(r"grpc://[^\s/@]+:\d{1,5}")

SERVER_FILE = "server.json"
"""In the data folder while it is served: where, and by which process."""


@dataclass(frozen=True, slots=True)
class Platform:
    """One of each port, and the job store over them."""

    settings: Settings
    store: Store
    bus: EventBus
    launcher: Launcher
    clock: Clock
    jobs: JobStore

    @staticmethod
    def open(settings: Settings, *, process: str = "tunesmith") -> Platform:
        """Open what the settings name; InvalidSettings for a URL that no adapter is for. `process` names the spans'."""
        _open_tracing(process)
        data = settings.data
        data.mkdir(parents=True, exist_ok=True)
        clock = SystemClock()
        store = open_store(settings)
        bus = open_bus(settings, clock)
        launcher = _open_launcher(settings)
        return Platform(settings, store, bus, launcher, clock, JobStore(store, clock))

    def prove_store(self) -> None:
        """See that an S3 store answers and keeps the conditions of writes, for a server before it starts; not for each
        worker. FailedPrecondition for one that ignores them; the local folder is known to keep them.
        """
        if not isinstance(self.store, LocalStore):
            from tunesmith.adapters.store_probe import prove_conditions

            prove_conditions(self.store, name=self.settings.store)

    def prepare(self, topics: Sequence[str]) -> None:
        """See to it that store and bus can be worked with. Unavailable while one does not answer.

        Raises InvalidSettings, PermissionRefused or NotFound, with the fix, for what waiting does not mend.
        """
        self.prove_store()
        self.bus.ensure_topics(topics)

    def close(self) -> None:
        """Release connections."""
        self.bus.close()


@dataclass(frozen=True, slots=True)
class _LanguageModelUrl:
    """A language model's address, read."""

    kind: Literal["embedded", "grpc", "openai", "tgi"]
    base: str
    model: str = ""
    api: Literal["chat", "completions"] = "chat"


def check_language_model_url(url: str) -> None:
    """Raise InvalidInput for an address that no adapter is for, or that carries a password."""
    try:
        _read_language_model_url(url)
    except InvalidSettings as error:
        raise InvalidInput(error.message, reason="BAD_LLM", metadata={"value": url[:200]}) from None


def open_language_model(
    settings: Settings, *, recipe: str, url: str = "", with_key: bool = True
) -> DescribedLanguageModel:
    """The language model at `url` (`settings.llm` where that is empty), which answers for `recipe`.

    Opened inside the event loop that will use it. InvalidSettings for a URL that no adapter is for; Unavailable for
    `embedded` while no server runs on the data folder.
    """
    read = _read_language_model_url(url or settings.llm)
    key = settings.llm_api_key.get_secret_value() if with_key else ""
    # HTTP and gRPC clients take a moment to import; a server that only accepts work does without.
    if read.kind in ("embedded", "grpc"):
        from tunesmith.adapters.generator_language_model import GeneratorLanguageModel

        own = read.kind == "embedded"
        return GeneratorLanguageModel(
            _served_address(settings.data) if own else read.base,
            recipe=recipe,
            auth_token=settings.auth_token if own else key,
            root_certificates=settings.tls_cert.read_bytes() if own and settings.tls_cert else None,
        )
    from tunesmith.adapters.http_endpoint import HttpEndpoint

    endpoint = HttpEndpoint(read.base, api_key=key)
    if read.kind == "tgi":
        from tunesmith.adapters.tgi_language_model import TgiLanguageModel

        return TgiLanguageModel(endpoint)
    from tunesmith.adapters.openai_language_model import OpenAILanguageModel

    return OpenAILanguageModel(endpoint, model=read.model, api=read.api)


def open_serving(settings: Settings) -> ServingBackend | None:
    """Who is asked whether a version is served as it was judged; None where `settings.serving` is `none`.

    Connecting happens with each question, so that a server may move in between.
    """
    return None if settings.serving == "none" else open_generator(settings)


def open_generator(settings: Settings) -> GeneratorServing:
    """The generator that `settings.serving` names, to be asked what it serves."""
    from tunesmith.adapters.generator_serving import GeneratorServing

    own = settings.serving == "embedded"
    return GeneratorServing(
        (lambda: _served_address(settings.data)) if own else (lambda: settings.serving.removeprefix("grpc://")),
        auth_token=settings.auth_token,
        root_certificates=settings.tls_cert.read_bytes() if settings.tls_cert else None,
    )


def _read_language_model_url(url: str) -> _LanguageModelUrl:
    if url == "embedded":
        return _LanguageModelUrl("embedded", "")
    if _GRPC.fullmatch(url):
        return _LanguageModelUrl("grpc", url.removeprefix("grpc://"))
    kind, _, address = url.partition("+")
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.username is not None or parts.password is not None:
        raise InvalidSettings("TUNESMITH_LLM carries a user or password; set TUNESMITH_LLM_API_KEY instead")
    if kind in ("openai", "tgi") and parts.scheme in ("http", "https") and parts.hostname:
        base = urlunsplit(parts._replace(query="", fragment=""))
        api = options.get("api", "chat")
        if kind == "tgi" and not options:
            return _LanguageModelUrl("tgi", base)
        if kind == "openai" and options.keys() <= {"model", "api"} and api in ("chat", "completions"):
            known: Literal["chat", "completions"] = "chat" if api == "chat" else "completions"
            return _LanguageModelUrl("openai", base, options.get("model", ""), known)
    raise InvalidSettings(
        f"TUNESMITH_LLM={url[:200]!r} names no language model: write embedded, grpc://host:port, "
        "openai+https://host/v1?model=NAME (with &api=completions for one that does not chat) or tgi+http://host",
        metadata={"setting": "TUNESMITH_LLM", "value": url[:200]},
    )


def _served_address(data: Path) -> str:
    """Where the server of a data folder listens."""
    try:
        return str(json.loads((data / SERVER_FILE).read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Unavailable(
            f"no generator is served on {data}; start `tunesmith up`, or set TUNESMITH_LLM (for writing) or "
            "TUNESMITH_SERVING (for promoting) to the address of another one",
            reason="LLM_NOT_SERVED",
        ) from None


def open_store(settings: Settings) -> Store:
    """The store that the settings name; nothing is sent yet. InvalidSettings for a URL that no adapter is for."""
    if not settings.store.startswith("s3://"):
        return LocalStore(_local_path(settings.store, "file", "TUNESMITH_STORE", default=settings.data / "store"))
    return open_minio(settings)


def open_minio(settings: Settings) -> MinioStore:
    """The S3 store that the settings name; InvalidSettings when it cannot be used or its client is missing."""
    # The embedded mode neither needs the S3 client nor waits for its import.
    try:
        from tunesmith.adapters.minio_store import MinioStore
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"TUNESMITH_STORE needs the S3 client ({error.name} is missing): pip install 'tunesmith[minio]'",
            reason="EXTRA_MISSING",
        ) from error
    return MinioStore.open(
        settings.store,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        ca=settings.s3_ca,
    )


def _open_tracing(process: str) -> None:
    """Make spans from now on if OpenTelemetry's variables name a collector; else not even its package is imported."""
    if is_tracing() or not any(os.environ.get(name) for name in TRACING_VARIABLES):
        return
    try:
        from tunesmith.adapters.otel_tracing import OtelTracing
    except ModuleNotFoundError as error:
        # Whoever runs the cluster may set the variable for all programs.
        log.warning("no traces are sent: %s is missing; pip install 'tunesmith[otel]'", error.name)
        return
    use_tracing(OtelTracing.to_collector(process))


def _open_launcher(settings: Settings) -> Launcher:
    """The launcher; on Kubernetes it connects with its first launch."""
    if settings.launcher == "subprocess":
        return SubprocessLauncher(settings.data / "launches")
    _need_kubernetes("TUNESMITH_LAUNCHER")
    from tunesmith.adapters.kubernetes_launcher import KubernetesLauncher
    from tunesmith.adapters.kubernetes_settings import KubernetesSettings

    return KubernetesLauncher(read_settings(KubernetesSettings))


def open_replicas(settings: Settings) -> Replicas | None:
    """Who starts servers for model versions; None where nobody does. Connects with its first call."""
    if settings.serving_replicas == "none":
        return None
    _need_kubernetes("TUNESMITH_SERVING_REPLICAS")
    from tunesmith.adapters.kubernetes_replicas import KubernetesReplicas
    from tunesmith.adapters.kubernetes_settings import KubernetesSettings

    return KubernetesReplicas(read_settings(KubernetesSettings))


def _need_kubernetes(setting: str) -> None:
    if find_spec("kubernetes") is None:
        raise InvalidSettings(
            f"{setting}=kubernetes needs the kubernetes client: install tunesmith[kubernetes]",
            metadata={"setting": setting, "value": "kubernetes"},
        )


def open_bus(settings: Settings, clock: Clock, *, creates: bool = False) -> EventBus:
    """The bus; with `creates` it makes topics whatever TUNESMITH_KAFKA_CREATE_TOPICS says."""
    if not settings.bus.startswith("kafka://"):
        path = _local_path(settings.bus, "sqlite", "TUNESMITH_BUS", default=settings.data / "bus.sqlite")
        return SqliteBus(path, clock=clock)
    if find_spec("kafka") is None:
        raise InvalidSettings(
            "TUNESMITH_BUS needs the Kafka client: install tunesmith[kafka]",
            reason="EXTRA_MISSING",
            metadata={"setting": "TUNESMITH_BUS", "value": settings.bus},
        )
    from tunesmith.adapters.kafka_bus import KafkaBus
    from tunesmith.adapters.kafka_settings import KafkaSettings
    from tunesmith.adapters.prefixed_bus import PrefixedBus

    kafka = read_settings(KafkaSettings, **({"create_topics": True} if creates else {}))
    bus = KafkaBus.of(kafka, settings.bus, allow_insecure=settings.allow_insecure, clock=clock)
    return PrefixedBus(bus, kafka.topic_prefix) if kafka.topic_prefix else bus


def _local_path(url: str, scheme: str, setting: str, *, default: Path) -> Path:
    if not url:
        return default
    parts = urlsplit(url)
    if parts.scheme != scheme or parts.netloc or not parts.path.startswith("/"):
        raise InvalidSettings(
            f"{setting}={url!r} names no adapter of this version: write {scheme}:///absolute/path",
            metadata={"setting": setting, "value": url},
        )
    return Path(unquote(parts.path))
