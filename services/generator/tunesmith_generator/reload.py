"""Which model version answers: the champion of each recipe, versions asked for by id, and the bare base.

A version stays loaded while a request holds a lease on it. A promotion loads the new version first, then moves one
pointer, then lets the old version go when its last lease ends; so no request ever meets a gap.
Free of PyTorch; everything runs on one event loop, and only store and language model are awaited.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tunesmith.domain import keys
from tunesmith.domain.errors import DataLoss, FailedPrecondition, NotFound, ResourceExhausted, TunesmithError
from tunesmith.domain.ids import check_name
from tunesmith.domain.models import Champion, ModelVersion
from tunesmith.ports.clock import Clock
from tunesmith.ports.language_model import Adapter, LanguageModel
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named

logger = logging.getLogger(__name__)

T = TypeVar("T")

BASE = "base"
"""The name that asks for the base model without an adapter."""

CHAMPION = "champion"
"""The name that asks for the champion, as the empty name does."""

MAX_RETRY_DELAY_S = 60.0
"""`poll_once` tries a champion that does not load again after 1, 2, 4, ... seconds, at most after this many."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model version that is ready to answer."""

    version: str
    """Its id, or `base`."""
    adapter: Adapter
    dataset_id: str
    """What it was trained on; for the base the champion's, or empty."""


@dataclass(slots=True)
class _Entry:
    """A version that is loaded or being loaded, and who needs it."""

    adapter: Adapter
    loading: asyncio.Task[None]
    num_leases: int = 0
    num_pointers: int = 0
    """Recipes whose champion it is."""
    last_used: int = 0
    retired: bool = False
    """Was champion: goes as soon as nobody holds it, instead of waiting for another request."""


@dataclass(slots=True)
class _Refreshing:
    """Refreshes of one recipe: one runs, and all that came meanwhile share the next."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_requested: int = 0
    num_covered: int = 0
    """Requests up to this one were made before the last completed refresh began to read."""


@dataclass(slots=True)
class _Backoff:
    """A champion that could not be loaded, and when to try again."""

    version: str
    delay_s: float
    retry_at_s: float


class ModelTable:
    """Leases loaded model versions to requests and follows the champion aliases."""

    def __init__(
        self,
        store: Store,
        language_model: LanguageModel,
        clock: Clock,
        *,
        recipes: Sequence[str],
        max_loaded_adapters: int,
        serve_rejected: bool = False,
        fingerprint_of_base: Callable[[str], str] | None = None,
    ) -> None:
        """`fingerprint_of_base` tells what a recipe's default base is, for asking the base before a champion exists."""
        self._store = store
        self._language_model = language_model
        self._clock = clock
        self._recipes = tuple(recipes)
        self._max_loaded_adapters = max_loaded_adapters
        self._serve_rejected = serve_rejected
        self._fingerprint_of_base = fingerprint_of_base
        self._champions: dict[str, Served] = {}
        self._entries: dict[str, _Entry] = {}
        self._unloading: dict[str, asyncio.Task[None]] = {}
        self._refreshing: dict[str, _Refreshing] = {}
        self._backoff: dict[str, _Backoff] = {}
        self._versions: dict[str, ModelVersion] = {}
        self._num_uses = 0

    def champion(self, recipe: str) -> Served | None:
        """The version that answers requests of `recipe` now."""
        return self._champions.get(recipe)

    def loaded(self) -> Mapping[str, int]:
        """Names of the adapters that are loaded or being loaded, with the number of running requests."""
        return {name: entry.num_leases for name, entry in self._entries.items()}

    @asynccontextmanager
    async def lease(self, recipe: str, model: str = "") -> AsyncIterator[Served]:
        """Hold a version ready while a request runs. `model`: empty or `champion`, `base`, or a version's id.

        Raises UnknownRecipe, NotFound (no such version), FailedPrecondition (no champion yet, or a version that did not
        pass its gates), ResourceExhausted (too many versions in use), and what loading raises.
        """
        recipe_named(recipe)
        served = await self._served(recipe, model)
        name = served.adapter.name
        await self._acquire(served.adapter, limited=model not in ("", CHAMPION))
        try:
            yield served
        finally:
            self._entries[name].num_leases -= 1
            self._collect()

    async def refresh(self, recipe: str) -> Served:
        """Read the champion alias and serve what it names. On return, an alias set before the call is being served.

        Idempotent; concurrent calls share their work. When the new champion does not load, the old one goes on and the
        error is raised. FailedPrecondition when there is no champion.
        """
        recipe_named(recipe)
        state = self._refreshing.setdefault(recipe, _Refreshing())
        state.num_requested += 1
        ticket = state.num_requested
        # Shielded, because a cancelled caller must not leave a version loaded that nothing points to.
        return await asyncio.shield(asyncio.create_task(self._refresh_covering(ticket, recipe=recipe, state=state)))

    async def poll_once(self) -> Mapping[str, str]:
        """Look at every champion alias and repair what a lost event left behind: recipe -> version newly served.

        Never raises for one recipe what would keep it from the others: errors are logged, and retried ever more rarely.
        """
        changed: dict[str, str] = {}
        for recipe in self._recipes:
            backoff = self._backoff.get(recipe)
            try:
                alias = await asyncio.to_thread(self._read_alias, recipe)
                before = self._champions.get(recipe)
                if alias is None or (before is not None and before.version == alias.version):
                    continue
                if backoff and backoff.version == alias.version and self._clock.monotonic_s() < backoff.retry_at_s:
                    continue
                served = await self.refresh(recipe)
            except TunesmithError as error:
                logger.warning("champion of %s cannot be refreshed: %s", recipe, error)
                continue
            if before is None or served.version != before.version:
                changed[recipe] = served.version
        return changed

    async def close(self) -> None:
        """Wait for unloadings that have begun. The language model's owner closes it."""
        await asyncio.gather(*self._unloading.values(), return_exceptions=True)

    async def _served(self, recipe: str, model: str) -> Served:
        """The version that a request means, not necessarily loaded."""
        if model in ("", CHAMPION):
            return self._champions.get(recipe) or await self.refresh(recipe)
        if model == BASE:
            return await self._base(recipe)
        champion = self._champions.get(recipe)
        if champion is not None and champion.version == model:
            return champion
        check_name(model, what="model version")
        version = await asyncio.to_thread(self._read_version, recipe, model)
        if not (version.passed or self._serve_rejected):
            raise FailedPrecondition(
                f"model version {model} of {recipe} did not pass its gates and is not served; "
                "set TUNESMITH_GENERATOR_SERVE_REJECTED=true to try it",
                reason="GATES_NOT_PASSED",
                metadata={"recipe": recipe, "version": model},
            )
        return _served_version(version)

    async def _base(self, recipe: str) -> Served:
        try:
            champion = self._champions.get(recipe) or await self.refresh(recipe)
        except FailedPrecondition:
            if self._fingerprint_of_base is None:
                raise
            base_model = recipe_named(recipe).default_base_model
            fingerprint = await asyncio.to_thread(self._fingerprint_of_base, base_model)
            return Served(BASE, bare_base(base_model, fingerprint), "")
        adapter = champion.adapter
        return Served(BASE, bare_base(adapter.base_model, adapter.base_fingerprint), champion.dataset_id)

    async def _refresh_covering(self, ticket: int, *, recipe: str, state: _Refreshing) -> Served:
        async with state.lock:
            if state.num_covered >= ticket and (current := self._champions.get(recipe)):
                return current
            covers = state.num_requested
            served = await self._refresh(recipe)
            state.num_covered = covers
            return served

    async def _refresh(self, recipe: str) -> Served:
        alias = await asyncio.to_thread(self._read_alias, recipe)
        old = self._champions.get(recipe)
        if alias is None:
            if old is not None:
                logger.warning("champion alias of %s is gone; version %s goes on", recipe, old.version)
                return old
            raise FailedPrecondition(
                f"recipe {recipe} has no champion yet: make one with `tunesmith run {recipe}`",
                reason="NO_CHAMPION",
                metadata={"recipe": recipe},
            )
        if old is not None and old.version == alias.version:
            return old
        try:
            new = _served_version(await asyncio.to_thread(self._read_version, recipe, alias.version))
            await self._acquire(new.adapter, limited=False)
        except TunesmithError:
            self._back_off(recipe, alias.version)
            raise
        self._backoff.pop(recipe, None)
        entry = self._entries[new.adapter.name]
        entry.num_pointers += 1
        entry.num_leases -= 1
        entry.retired = False
        self._champions[recipe] = new
        if old is not None:
            old_entry = self._entries[old.adapter.name]
            old_entry.num_pointers -= 1
            old_entry.retired = True
        logger.info("champion of %s is now %s (was %s)", recipe, new.version, old.version if old else "none")
        self._collect()
        return new

    def _back_off(self, recipe: str, version: str) -> None:
        before = self._backoff.get(recipe)
        again = before is not None and before.version == version
        delay_s = min(before.delay_s * 2, MAX_RETRY_DELAY_S) if before is not None and again else 1.0
        self._backoff[recipe] = _Backoff(version, delay_s, self._clock.monotonic_s() + delay_s)

    async def _acquire(self, adapter: Adapter, *, limited: bool) -> None:
        """Take a lease on `adapter`, loading it first if need be; whoever comes while it loads waits for the same load.

        `limited` adapters share the places beside the champions'.
        """
        entry = self._entries.get(adapter.name)
        if entry is None:
            if limited:
                self._make_place(adapter.name)
            entry = _Entry(adapter, asyncio.create_task(self._load(adapter)))
            self._entries[adapter.name] = entry
        # The lease begins before the load ends, so that the entry cannot be collected between the two.
        entry.num_leases += 1
        self._num_uses += 1
        entry.last_used = self._num_uses
        try:
            await asyncio.shield(entry.loading)
        except BaseException:
            entry.num_leases -= 1
            self._collect()
            raise

    def _make_place(self, name: str) -> None:
        """Let the least recently used idle version go when all places are taken; ResourceExhausted if none is idle."""
        self._collect(keep=self._max_loaded_adapters - 1)
        num_taken = sum(1 for entry in self._entries.values() if not entry.num_pointers and not entry.retired)
        if num_taken >= self._max_loaded_adapters:
            raise ResourceExhausted(
                f"model version {name} cannot be loaded: {num_taken} other versions are in use and the limit is "
                f"{self._max_loaded_adapters}; try again, or raise TUNESMITH_GENERATOR_MAX_LOADED_ADAPTERS",
                reason="TOO_MANY_VERSIONS",
                metadata={"version": name, "limit": str(self._max_loaded_adapters)},
            )

    async def _load(self, adapter: Adapter) -> None:
        try:
            if going := self._unloading.get(adapter.name):
                await asyncio.shield(going)
            try:
                await self._language_model.load(adapter)
            except ResourceExhausted:
                # No room, perhaps because of versions that nobody is using: let all of those go, then try once more.
                await asyncio.gather(*self._collect(keep=0))
                await self._language_model.load(adapter)
        except BaseException:
            del self._entries[adapter.name]
            raise

    def _collect(self, *, keep: int | None = None) -> Sequence[asyncio.Task[None]]:
        """Begin to unload what nobody needs: retired champions at once, others but for `keep` (all), oldest first."""
        idle = [e for e in self._entries.values() if not e.num_leases and not e.num_pointers and e.loading.done()]
        going = [entry for entry in idle if entry.retired]
        if keep is not None:
            unretired = [entry for entry in self._entries.values() if not entry.num_pointers and not entry.retired]
            waiting = sorted((e for e in idle if not e.retired), key=lambda entry: entry.last_used)
            going += waiting[: max(0, len(unretired) - keep)]
        return [self._begin_unload(entry) for entry in going]

    def _begin_unload(self, entry: _Entry) -> asyncio.Task[None]:
        name = entry.adapter.name
        del self._entries[name]
        task = asyncio.create_task(self._language_model.unload(name))
        self._unloading[name] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._unloading.get(name) is done:
                del self._unloading[name]

        task.add_done_callback(forget)
        return task

    def _read_alias(self, recipe: str) -> Champion | None:
        try:
            return self._read(keys.champion(recipe), Champion.from_json)
        except NotFound:
            return None

    def _read_version(self, recipe: str, version: str) -> ModelVersion:
        key = keys.model_version(recipe, version)
        # Versions never change, so that what was read once need not be read again.
        if known := self._versions.get(key):
            return known
        try:
            read = self._read(key, ModelVersion.from_json)
        except NotFound:
            raise NotFound(
                f"recipe {recipe} has no model version {version}; list them with `tunesmith models {recipe}`",
                reason="MODEL_VERSION_NOT_FOUND",
                metadata={"recipe": recipe, "version": version},
            ) from None
        self._versions[key] = read
        return read

    def _read(self, key: str, parse: Callable[[Any], T]) -> T:
        data = self._store.get(key).data
        try:
            return parse(json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise DataLoss(
                f"object {key} is corrupt ({error!r}); restore it, or promote again", metadata={"key": key}
            ) from error


def bare_base(base_model: str, base_fingerprint: str) -> Adapter:
    """A base model under a name of its own: an Adapter without key and hash asks the base alone."""
    return Adapter(f"{BASE}:{base_fingerprint}", "", "", base_model, base_fingerprint)


def _served_version(version: ModelVersion) -> Served:
    adapter = Adapter(
        name=version.id,
        hash=version.adapter_hash,
        key=version.adapter_key,
        base_model=version.base_model,
        base_fingerprint=version.base_fingerprint,
    )
    return Served(version.id, adapter, version.dataset_id)
