"""Servers of one version each: which are wanted, how far they are, and when one may go.

For backends that load no version at run time. A promotion writes down that it wants its version served, says so again
while it waits, and reads there what came of it. The service, which alone may start servers, looks every few seconds at
what is wanted and at what is there, and brings the two together. Each look starts from nothing: whatever was killed in
between, the next look, by any replica of the service, goes on.

A version is needed while it is champion, or while a promotion waits for it. A former champion goes when its successor's
servers are ready and nobody answers with it any more; any other goes at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from tunesmith.catalogue import list_objects
from tunesmith.domain import keys
from tunesmith.domain.errors import FailedPrecondition, Interrupted, TunesmithError, Unavailable
from tunesmith.domain.models import Champion, ModelVersion
from tunesmith.ports.clock import Clock
from tunesmith.ports.replicas import Replica, Replicas
from tunesmith.ports.serving import ServingUsers
from tunesmith.ports.store import Store
from tunesmith.state_objects import change_object, find_object, new_writer
from tunesmith_trainer import registry

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 5.0
"""Between two looks at what is wanted and what is there."""

RENEW_S = 5.0
"""Between two signs of life of a promotion that waits."""

LEASE_S = 900.0
"""A wish goes when it was not renewed for so long: longer than one question to the generator, and than a killed
attempt takes to come back; it is also how long a promotion by hand may be asked for again."""

GRACE_S = 15.0
"""A former champion stays at least so long: for requests that chose it before they met the alias' move."""

DRAIN_S = 900.0
"""And at most so long once its successor is ready, whatever is said to run on it, so that no GPU is held for ever."""

UNHEARD_S = 120.0
"""A promotion gives up when no service looks at its wish for so long."""

WishState = Literal["wanted", "starting", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Wish:
    """That a version is to be served before it is champion. Written by promotions, and by the service that acts."""

    recipe: str
    version: str
    rev: int
    writer: str
    asked: int
    """Grows each time that it is wished for anew: what came of an earlier time does not count for this one."""
    renewed: int
    """Grows with each sign of life of whoever waits."""
    state: WishState
    reason: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """The state object."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Wish:
        """The inverse of `to_json`."""
        return Wish(**{f.name: row[f.name] for f in fields(Wish)})


class Wishes:
    """The wishes in the store. Every method raises what the store raises, and DataLoss for a corrupt one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ask(self, recipe: str, version: str) -> Wish:
        """Wish for a version, also when it failed before; one that is on its way goes on."""

        def step(current: Wish | None) -> Wish:
            if current is None or current.state == "failed":
                asked, renewed, rev = (current.asked, current.renewed, current.rev) if current else (0, 0, 0)
                return Wish(recipe, version, rev + 1, new_writer(), asked + 1, renewed + 1, "wanted")
            return _next(current, renewed=current.renewed + 1)

        wish = self._change(recipe, version, step)
        assert wish is not None
        return wish

    def renew(self, wish: Wish) -> Wish:
        """Show that somebody waits; gives the wish as it is. One that is gone is wished for anew."""

        def step(current: Wish | None) -> Wish | None:
            if current is None:
                return replace(wish, rev=wish.rev + 1, writer=new_writer(), state="wanted", reason="", detail="")
            return None if current.state == "failed" else _next(current, renewed=current.renewed + 1)

        found = self._change(wish.recipe, wish.version, step)
        assert found is not None
        return found

    def note(self, wish: Wish, state: WishState, reason: str = "", detail: str = "") -> None:
        """Write down how far it is; not on a wish that is gone, was made anew, or has failed."""

        def step(current: Wish | None) -> Wish | None:
            if current is None or current.asked != wish.asked or current.state == "failed":
                return None
            if (current.state, current.reason, current.detail) == (state, reason, detail):
                return None
            return _next(current, state=state, reason=reason, detail=detail)

        self._change(wish.recipe, wish.version, step)

    def find(self, recipe: str, version: str) -> Wish | None:
        """The wish for a version, if there is one."""
        return find_object(self._store, keys.replica_wish(recipe, version), Wish.from_json, what=_what(version))

    def of(self, recipe: str) -> Sequence[Wish]:
        """All of a recipe; corrupt ones are logged and left out."""
        prefix = keys.replica_wish(recipe, "").removesuffix(".json")
        return list_objects(self._store, prefix, Wish.from_json, what="wish for a replica")

    def withdraw(self, recipe: str, version: str) -> None:
        """Wish for it no more; nothing happens without one."""
        self._store.delete(keys.replica_wish(recipe, version))

    def _change(self, recipe: str, version: str, step: Callable[[Wish | None], Wish | None]) -> Wish | None:
        key = keys.replica_wish(recipe, version)
        return change_object(self._store, key, step, parse=Wish.from_json, what=_what(version))[0]


@dataclass(frozen=True, slots=True)
class Asker:
    """A promotion's side: has its version's servers started, and waits for them.

    A process that is killed here leaves a wish, which the next attempt finds, or which goes after LEASE_S.
    """

    wishes: Wishes
    clock: Clock
    patience_s: float
    """How long the servers may take to be ready."""
    should_stop: Callable[[], bool] = lambda: False
    waiting: Callable[[str], None] = lambda _: None
    """Told why it waits."""

    def until_ready(self, version: ModelVersion) -> None:
        """Wait until the version's servers are ready.

        Raises FailedPrecondition with the reason and the fix when they could not be started, Unavailable when they are
        not ready within `patience_s` (they go on; asking again goes on as well) or no service looks, Interrupted.
        """
        began_s = self.clock.monotonic_s()
        wish = self.wishes.ask(version.recipe, version.id)
        while wish.state != "ready":
            if self.should_stop():
                raise Interrupted("promoting was asked to stop; the next attempt waits for the same servers")
            if wish.state == "failed":
                self.wishes.withdraw(version.recipe, version.id)
                raise _not_started(version, wish)
            waited_s = self.clock.monotonic_s() - began_s
            if wish.state == "wanted" and waited_s >= UNHEARD_S:
                raise _unheard(version)
            if waited_s >= self.patience_s:
                raise _not_ready_yet(version, wish, self.patience_s)
            self.waiting(wish.detail or "its servers are being started")
            self.clock.sleep(min(RENEW_S, max(0.1, self.patience_s - waited_s)))
            wish = self.wishes.renew(wish)

    def still_waits(self, version: ModelVersion) -> None:
        """Keep the servers while the version is being compared; nothing happens without a wish."""
        wish = self.wishes.find(version.recipe, version.id)
        if wish is not None:
            self.wishes.renew(wish)

    def refused(self, version: ModelVersion) -> None:
        """Let the servers go: the version does not become champion."""
        self.wishes.withdraw(version.recipe, version.id)


class ReplicaKeeper:
    """The service's side. Several processes may keep the same replicas; every step may happen twice."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        replicas: Replicas,
        users: ServingUsers,
        *,
        recipes: Callable[[], Iterable[str]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._replicas = replicas
        self._users = users
        self._recipes = recipes
        self._wishes = Wishes(store)
        # All by this process's own clock: wall clocks of two machines are never compared.
        self._renewed: dict[tuple[str, str], tuple[tuple[int, int], float]] = {}
        self._unneeded_since: dict[tuple[str, str], float] = {}
        self._complained: dict[str, str] = {}

    def look(self) -> None:
        """Bring what is there and what is needed together, one step further.

        Raises Unavailable when nobody can be asked what is there. What goes wrong with one recipe is logged, leaves its
        replicas as they are, and does not keep the others.
        """
        # What is there is listed first: whatever is in the list was started for something that is still written down
        # when it is read below, or was not needed any more.
        there = self._replicas.all()
        for recipe in sorted({*self._recipes(), *(replica.recipe for replica in there)}):
            own = {replica.version: replica for replica in there if replica.recipe == recipe}
            try:
                self._look_at(recipe, own)
            except TunesmithError as error:
                self._complain(recipe, f"the servers of {recipe} are left as they are: {error}")
            else:
                self._complained.pop(recipe, None)
        known = {(replica.recipe, replica.version) for replica in there}
        self._unneeded_since = {key: at for key, at in self._unneeded_since.items() if key in known}

    def _look_at(self, recipe: str, there: Mapping[str, Replica]) -> None:
        # Wishes before the alias: one that was granted is taken away only after the alias has moved to its version.
        wishes = self._wishes.of(recipe)
        champion = registry.champion(self._store, recipe)
        needed: dict[str, Wish | None] = {}
        if champion is not None:
            needed[champion.version] = None
        for wish in wishes:
            if self._is_stale(wish) or (champion is not None and wish.version == champion.version):
                # Who comes back to it wishes anew.
                self._wishes.withdraw(recipe, wish.version)
            elif wish.state != "failed":
                needed[wish.version] = wish
        for version, wanted in needed.items():
            self._care_for(recipe, version, wanted, there.get(version))
        for version in there.keys() - needed.keys():
            self._let_go(recipe, version, champion, there)
        for version in needed:
            self._unneeded_since.pop((recipe, version), None)

    def _care_for(self, recipe: str, version: str, wish: Wish | None, replica: Replica | None) -> None:
        if replica is None:
            try:
                self._replicas.start(registry.get_version(self._store, recipe, version))
            except Unavailable:
                raise
            except TunesmithError as error:
                if wish is None:
                    raise
                self._wishes.note(wish, "failed", error.reason, error.message)
                return
            log.info("a server for %s of %s is being started", version, recipe)
            if wish is not None:
                self._wishes.note(wish, "starting")
        elif wish is not None:
            self._wishes.note(wish, replica.state, replica.reason, replica.detail)
            if replica.state == "failed":
                self._stop(recipe, version, f"it cannot be started ({replica.reason})")
        elif replica.state == "failed":
            self._complain(
                f"{recipe}/{version}", f"champion {version} of {recipe} is not fully served: {replica.detail}"
            )
        else:
            self._complained.pop(f"{recipe}/{version}", None)

    def _let_go(self, recipe: str, version: str, champion: Champion | None, there: Mapping[str, Replica]) -> None:
        if champion is None or all(change.version != version for change in champion.history):
            self._stop(recipe, version, "no promotion waits for it")
            return
        now_s = self._clock.monotonic_s()
        successor = there.get(champion.version)
        if successor is None or successor.state != "ready":
            # Generators go on with it until they have its successor.
            self._unneeded_since.pop((recipe, version), None)
            return
        waited_s = now_s - self._unneeded_since.setdefault((recipe, version), now_s)
        if waited_s < GRACE_S:
            return
        if waited_s < DRAIN_S and self._is_used(recipe, version):
            return
        self._stop(recipe, version, f"{champion.version} has taken over")

    def _is_used(self, recipe: str, version: str) -> bool:
        try:
            return self._users.is_used(recipe, version)
        except TunesmithError as error:
            log.warning("whether %s of %s is still used cannot be asked: %s", version, recipe, error)
            return True

    def _stop(self, recipe: str, version: str, why: str) -> None:
        log.info("the server of %s of %s goes: %s", version, recipe, why)
        self._replicas.stop(recipe, version)

    def _is_stale(self, wish: Wish) -> bool:
        key, signs, now_s = (wish.recipe, wish.version), (wish.asked, wish.renewed), self._clock.monotonic_s()
        seen, since_s = self._renewed.get(key, (signs, now_s))
        if seen != signs:
            since_s = now_s
        self._renewed[key] = (signs, since_s)
        return now_s - since_s >= LEASE_S

    def _complain(self, about: str, text: str) -> None:
        """Log what does not change once."""
        if self._complained.get(about) != text:
            log.warning("%s", text)
        self._complained[about] = text


def _next(wish: Wish, **changes: Any) -> Wish:
    return replace(wish, rev=wish.rev + 1, writer=new_writer(), **changes)


def _what(version: str) -> str:
    return f"wish for a replica of {version!r}"


def _promote(version: ModelVersion) -> str:
    return f"`tunesmith promote {version.recipe} {version.id}`"


def _not_started(version: ModelVersion, wish: Wish) -> FailedPrecondition:
    return FailedPrecondition(
        f"model version {version.id} passed its gates but is not champion, because no server could be started with it: "
        f"{wish.detail}; then run {_promote(version)}",
        reason=wish.reason or "REPLICA_FAILED",
        metadata={"version": version.id, "recipe": version.recipe},
    )


def _not_ready_yet(version: ModelVersion, wish: Wish, patience_s: float) -> Unavailable:
    return Unavailable(
        f"model version {version.id} is not champion yet: its server is not ready after {patience_s:.0f} s "
        f"({wish.detail or 'it is starting'}); it goes on starting, so run {_promote(version)} in a few minutes",
        reason="REPLICA_STARTING",
        metadata={"version": version.id, "waited_s": f"{patience_s:.0f}"},
    )


def _unheard(version: ModelVersion) -> Unavailable:
    return Unavailable(
        f"model version {version.id} passed its gates but is not champion: no trainer has looked for {UNHEARD_S:.0f} s "
        "at which servers are wanted; start one with TUNESMITH_SERVING_REPLICAS=kubernetes, see its log, and run "
        f"{_promote(version)}",
        reason="NO_REPLICA_KEEPER",
        metadata={"version": version.id},
    )
