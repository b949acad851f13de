"""A new server beside the old one: started for a promotion, kept for the champion, and gone when nobody needs it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.deadline import eventually
from doubles.fake_clock import FakeClock
from doubles.kubernetes_api import FakeCluster
from doubles.replica_host import HostedReplicas, ReplicaHost
from tunesmith.adapters.kubernetes_replica import replica_name
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.adapters.local_store import LocalStore
from tunesmith.domain import keys
from tunesmith.domain.errors import (
    FailedPrecondition,
    Interrupted,
    InvalidSettings,
    NotFound,
    PermissionRefused,
    TunesmithError,
    Unavailable,
)
from tunesmith.domain.models import GateResult, ModelVersion, Report
from tunesmith.domain.parity import NotAsJudged, Probe, Probes, ProbeToken, ServedAnswers, ServedToken
from tunesmith.platform import Platform
from tunesmith.ports.replicas import Replica
from tunesmith.settings import Settings
from tunesmith_trainer import bootstrap, registry
from tunesmith_trainer.parity import ParityGate
from tunesmith_trainer.replicas import (
    DRAIN_S,
    GRACE_S,
    LEASE_S,
    LOOK_INTERVAL_S,
    UNHEARD_S,
    Asker,
    ReplicaKeeper,
    Wishes,
)

RECIPE = "micro_genre"
PROBES = Probes(
    probes=tuple(
        Probe(f"{n}->", (ProbeToken(n, "sea", -0.5, 9, -3.0), ProbeToken(7, "", -0.1, 9, -4.0))) for n in range(4)
    ),
    max_new_tokens=8,
    stop=(),
    noise=1e-6,
    half_noise=1e-3,
)


class Killed(BaseException):
    """The process is gone: nothing after this instant happened."""


class World:
    """A store, the machine with the servers, the generator, and the service that looks; time passes by `tick`."""

    def __init__(self, folder: Path, *, patience_s: float = 3600.0) -> None:
        self.store: Any = LocalStore(folder / "store")
        self.host = ReplicaHost()
        self.replicas: Any = HostedReplicas(self.host)
        self.clock = TickingClock(self.tick)
        self.answers_for_champion = True
        self.running: set[str] = set()
        """Versions with requests under way."""
        self.wrong: set[str] = set()
        """Versions that are served otherwise than they were judged."""
        self.patience_s = patience_s
        self.ready_after = 3
        self.looks = True
        self._age: dict[str, int] = {}
        self.keeper = self.new_keeper()
        self.champion_was_served_at_every_tick = True
        for number in (1, 2, 3):
            self.register(f"mv-{number}")

    def register(self, name: str) -> None:
        version = ModelVersion(
            name, RECIPE, f"run-{name}", "ds", "org/b", "hub:org/b", "k/", "a" * 64, f"rep-{name}", True, "t"
        )
        gate = GateResult("novelty", "novel_share", True, 0.6, ">=", 0.5, "fine")
        report = Report(
            f"rep-{name}", RECIPE, f"run-{name}", "ds", name, "", {}, {}, {}, {}, (gate,), True, "t", probes=PROBES
        )
        registry.register(self.store, version, report)

    def new_keeper(self) -> ReplicaKeeper:
        return ReplicaKeeper(self.store, self.clock, self.replicas, self, recipes=lambda: [RECIPE])

    # the generator

    def answer_probes(self, recipe: str, version: str, probes: Probes, *, timeout_s: float) -> ServedAnswers:
        if Replica(recipe, version, "ready") not in self.host.there.values():
            raise NotFound(f"adapter {version} is not served")
        off = 1.0 if version in self.wrong else 0.0
        rows = tuple(tuple(ServedToken(t.id, t.text, t.logprob - off) for t in p.tokens) for p in probes.probes)
        return ServedAnswers(rows, "a" * 64, "double", "float32")

    def is_used(self, recipe: str, version: str) -> bool:
        if not self.answers_for_champion:
            raise Unavailable("a generator does not answer")
        return version in self.running or version == self.champion()

    # the rest of the world

    def tick(self) -> None:
        """Servers get on, and the service looks once."""
        for version in self.host.names():
            self._age[version] = self._age.get(version, 0) + 1
            if self._age[version] == self.ready_after:
                self.host.set(version, "ready")
        self._age = {version: age for version, age in self._age.items() if version in self.host.names()}
        if self.looks:
            self.keeper.look()
        served = {name for name in self.host.names() if self._age.get(name, 0) >= self.ready_after}
        if self.champion() and self.champion_was_once_served and not served & self.ever_champion():
            self.champion_was_served_at_every_tick = False

    champion_was_once_served = False

    def ever_champion(self) -> set[str]:
        found = registry.champion(self.store, RECIPE)
        return {change.version for change in found.history} if found else set()

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / LOOK_INTERVAL_S) + 1):
            self.clock.sleep(LOOK_INTERVAL_S)

    def champion(self) -> str:
        found = registry.champion(self.store, RECIPE)
        return found.version if found else ""

    def promote(self, name: str, **asker: Any) -> None:
        """One attempt of a promotion."""
        gate = ParityGate(
            self.store,
            self.clock,
            self,
            patience_s=60.0,
            servers=Asker(Wishes(self.store), self.clock, self.patience_s, **asker),
        )
        registry.promote(
            self.store, self.clock, RECIPE, name, cause="test", expected=None, served_as_judged=gate.require
        )

    def grant(self) -> None:
        """What the end of mv-2's promotion does, and the look of another service after it."""
        registry.promote(
            self.store,
            self.clock,
            RECIPE,
            "mv-2",
            cause="test",
            expected=None,
            served_as_judged=lambda _version, _report: None,
        )
        Wishes(self.store).withdraw(RECIPE, "mv-2")

    def wish(self, name: str) -> str:
        found = Wishes(self.store).find(RECIPE, name)
        return found.state if found else ""

    def with_champion(self) -> World:
        self.promote("mv-1")
        self.pass_time(30)
        self.champion_was_once_served = True
        assert self.host.names() == {"mv-1"}
        return self


class TickingClock(FakeClock):
    """Whoever sleeps lets the world go on."""

    def __init__(self, tick: Callable[[], None]) -> None:
        super().__init__()
        self._tick = tick

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._tick()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_new_server_starts_beside_the_old_one_which_goes_when_it_is_not_used_any_more(world: World) -> None:
    world.with_champion()
    world.running = {"mv-1"}
    world.promote("mv-2")
    assert world.champion() == "mv-2"
    assert world.host.names() == {"mv-1", "mv-2"}
    world.pass_time(GRACE_S * 3)
    assert world.host.names() == {"mv-1", "mv-2"}, "a request still runs on the old one"
    world.running = set()
    world.pass_time(LOOK_INTERVAL_S)
    assert world.host.names() == {"mv-2"}
    assert world.host.num_started == 2
    assert world.wish("mv-2") == ""
    assert world.champion_was_served_at_every_tick


def test_the_alias_does_not_move_before_the_server_is_ready(world: World) -> None:
    world.with_champion()
    told: list[str] = []

    def waiting(why: str) -> None:
        assert world.champion() == "mv-1"
        told.append(why)

    world.promote("mv-2", waiting=waiting)
    assert told[0] == "its servers are being started"


def test_a_version_that_is_served_otherwise_than_judged_loses_its_server_and_the_old_one_goes_on(world: World) -> None:
    world.with_champion().wrong = {"mv-2"}
    with pytest.raises(NotAsJudged):
        world.promote("mv-2")
    world.pass_time(LOOK_INTERVAL_S)
    assert world.champion() == "mv-1"
    assert world.host.names() == {"mv-1"}
    assert world.wish("mv-2") == ""


def test_a_server_that_cannot_start_refuses_the_promotion_with_the_reason_and_the_fix(world: World) -> None:
    world.with_champion().ready_after = 10**9

    def fails(_: str) -> None:
        world.host.set("mv-2", "failed", "NO_GPU", "no node has a free nvidia.com/gpu: add a node with a GPU")

    with pytest.raises(FailedPrecondition) as raised:
        world.promote("mv-2", waiting=fails)
    assert raised.value.reason == "NO_GPU"
    assert "no server could be started with it: no node has a free nvidia.com/gpu: add a node" in raised.value.message
    assert "tunesmith promote micro_genre mv-2" in raised.value.message
    assert world.host.names() == {"mv-1"}
    assert world.champion() == "mv-1"


@pytest.mark.parametrize(
    "refusal", [PermissionRefused("may not", reason="FORBIDDEN"), FailedPrecondition("no template", reason="NONE")]
)
def test_what_the_cluster_refuses_refuses_the_promotion(world: World, refusal: TunesmithError) -> None:
    world.with_champion().host.refusal = refusal
    with pytest.raises(FailedPrecondition) as raised:
        world.promote("mv-2")
    assert raised.value.reason == refusal.reason
    assert refusal.message in raised.value.message


def test_a_promotion_that_failed_may_be_asked_for_again(world: World) -> None:
    world.with_champion().host.refusal = FailedPrecondition("no template")
    with pytest.raises(FailedPrecondition):
        world.promote("mv-2")
    world.host.refusal = None
    world.promote("mv-2")
    assert world.champion() == "mv-2"


def test_a_late_word_about_an_earlier_attempt_does_not_fail_the_next_one(world: World) -> None:
    wishes = Wishes(world.store)
    first = wishes.ask(RECIPE, "mv-2")
    wishes.note(first, "failed", "NO_GPU", "no GPU")
    again = wishes.ask(RECIPE, "mv-2")
    wishes.note(first, "failed", "NO_GPU", "no GPU")
    assert world.wish("mv-2") == "wanted"
    wishes.note(again, "ready")
    wishes.note(first, "starting")
    assert world.wish("mv-2") == "ready"


def test_a_server_that_takes_too_long_goes_on_starting_for_whoever_asks_again(world: World) -> None:
    world.with_champion().ready_after = 20
    world.patience_s = 20.0
    with pytest.raises(Unavailable) as raised:
        world.promote("mv-2")
    assert raised.value.reason == "REPLICA_STARTING"
    world.pass_time(100)
    world.promote("mv-2")
    assert world.champion() == "mv-2"
    assert world.host.num_started == 2


def test_a_server_that_nobody_waits_for_any_more_goes(world: World) -> None:
    world.with_champion()
    with pytest.raises(Interrupted):
        world.promote("mv-2", should_stop=iter([False, False, False, True]).__next__)
    assert world.host.names() == {"mv-1", "mv-2"}
    world.pass_time(LEASE_S - 60)
    assert world.host.names() == {"mv-1", "mv-2"}, "the next attempt may come"
    world.pass_time(120)
    assert world.host.names() == {"mv-1"}
    assert world.wish("mv-2") == ""


def test_a_promotion_that_waits_long_keeps_its_server(world: World) -> None:
    world.with_champion().ready_after = int(3 * LEASE_S / LOOK_INTERVAL_S)
    world.promote("mv-2")
    assert world.champion() == "mv-2"
    assert world.host.num_started == 2


def test_without_a_service_that_looks_a_promotion_says_so(world: World) -> None:
    world.looks = False
    with pytest.raises(Unavailable, match="TUNESMITH_SERVING_REPLICAS=kubernetes") as raised:
        world.promote("mv-1")
    assert raised.value.reason == "NO_REPLICA_KEEPER"
    assert world.clock.monotonic_s() < 1000 + UNHEARD_S + 60


def test_a_champions_server_that_is_lost_is_started_again(world: World) -> None:
    world.with_champion()
    world.replicas.stop(RECIPE, "mv-1")
    world.pass_time(LOOK_INTERVAL_S)
    assert world.host.names() == {"mv-1"}


def test_after_a_rollback_the_old_server_stays_until_the_former_one_is_ready_again(world: World) -> None:
    world.with_champion().promote("mv-2")
    world.pass_time(60)
    world.ready_after = 20
    registry.rollback(world.store, world.clock, RECIPE, cause="test")
    assert world.champion() == "mv-1"
    world.pass_time(GRACE_S * 3)
    assert world.host.names() == {"mv-1", "mv-2"}
    world.pass_time(200)
    assert world.host.names() == {"mv-1"}


def test_a_generator_that_does_not_answer_keeps_the_old_server_but_not_for_ever(world: World) -> None:
    world.with_champion().promote("mv-2")
    world.answers_for_champion = False
    world.pass_time(DRAIN_S - 60)
    assert world.host.names() == {"mv-1", "mv-2"}
    world.pass_time(120)
    assert world.host.names() == {"mv-2"}


def test_the_old_server_is_never_let_go_while_the_new_one_is_not_ready(world: World) -> None:
    world.with_champion().promote("mv-2")
    world.host.set("mv-2", "failed", "REPLICA_NOT_READY", "its node is gone")
    world.pass_time(2 * DRAIN_S)
    assert world.host.names() == {"mv-1", "mv-2"}
    world.host.set("mv-2", "ready")
    world.pass_time(GRACE_S * 2)
    assert world.host.names() == {"mv-2"}


def test_servers_of_no_champion_and_no_promotion_are_left_over_and_go(world: World) -> None:
    world.with_champion()
    for recipe, name in ((RECIPE, "mv-3"), ("deleted_recipe", "mv-9")):
        world.replicas.start(replace(registry.get_version(world.store, RECIPE, "mv-3"), recipe=recipe, id=name))
    world.pass_time(LOOK_INTERVAL_S)
    assert world.host.names() == {"mv-1"}


def test_while_the_cluster_is_away_everything_stays_and_goes_on_after(world: World) -> None:
    world.with_champion().host.is_away = Unavailable("the API server does not answer")
    with pytest.raises(Unavailable):
        world.keeper.look()
    world.host.is_away = None
    world.promote("mv-2")
    assert world.champion() == "mv-2"


def test_an_alias_that_cannot_be_read_costs_no_server(world: World) -> None:
    world.with_champion()
    key = keys.champion(RECIPE)
    whole = world.store.get(key).data
    world.store.put(key, b"{")
    for _ in range(5):
        world.keeper.look()
    assert world.host.names() == {"mv-1"}
    world.store.put(key, whole)
    world.promote("mv-2")
    assert world.champion() == "mv-2"


def test_two_services_that_look_at_once_start_and_stop_everything_once(world: World) -> None:
    keepers = [world.keeper, world.new_keeper()]
    turns = itertools.cycle(keepers)
    world.looks = False
    world.clock._tick = lambda: (World.tick(world), next(turns).look())  # type: ignore[assignment, func-returns-value]
    world.promote("mv-1")
    world.promote("mv-2")
    world.pass_time(120)
    assert world.champion() == "mv-2"
    assert world.host.names() == {"mv-2"}
    assert world.host.num_started == 2


def test_an_alias_that_moves_while_the_service_looks_costs_the_new_champion_nothing(world: World) -> None:
    """The promotion ends, and another service takes its wish away, between any two things that this one reads."""
    world.with_champion()
    world.looks = False
    Wishes(world.store).ask(RECIPE, "mv-2")
    world.keeper.look()
    world.host.set("mv-2", "ready")
    reads = Reads(world.store)
    watching = ReplicaKeeper(reads, world.clock, world.replicas, world, recipes=lambda: [RECIPE])
    watching.look()
    for at in range(reads.num_reads):
        meanwhile = Reads(world.store, at=at, do=world.grant)
        ReplicaKeeper(meanwhile, world.clock, world.replicas, world, recipes=lambda: [RECIPE]).look()
        assert world.champion() == "mv-2"
        assert world.host.names() == {"mv-1", "mv-2"}, at
        registry.rollback(world.store, world.clock, RECIPE, cause="test")
        Wishes(world.store).ask(RECIPE, "mv-2")


class Reads:
    """A store in which something happens after the n-th read."""

    def __init__(self, behind: Any, *, at: int = -1, do: Callable[[], None] = lambda: None) -> None:
        self._behind, self._at, self._do, self.num_reads = behind, at, do, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._behind, name)
        if name not in ("get", "list"):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            found = list(found) if name == "list" else found
            self.num_reads += 1
            if self.num_reads - 1 == self._at:
                self._do()
            return found

        return call


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    cluster = FakeCluster(tmp_path)
    meta = {"name": "tgi"}
    cluster.write("podtemplates", {"metadata": meta, "template": {"spec": {"containers": [{"name": "tgi"}]}}})
    yield cluster
    cluster.close()


def test_where_the_setting_says_so_the_service_keeps_servers_on_its_cluster(
    world: World, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_KUBERNETES_KUBECONFIG", str(cluster.kubeconfig))
    world.with_champion()
    settings = {"data": tmp_path, "store": f"file://{tmp_path}/store", "serving": "grpc://127.0.0.1:9"}
    for chosen, num_loops in (("none", 0), ("kubernetes", 1)):
        platform = Platform.open(Settings(**settings, serving_replicas=chosen))  # type: ignore[arg-type]
        loops = bootstrap._keeping(platform)
        assert len(loops) == num_loops
        platform.close()
    [loop] = loops
    loop.start()
    made = eventually(lambda: [name for kind, name in cluster.objects if kind == "deployments"])
    loop.stop()
    assert made == [replica_name(RECIPE, "mv-1", KubernetesSettings())]


def test_servers_without_a_generator_that_answers_from_them_are_a_wrong_setting() -> None:
    with pytest.raises(InvalidSettings, match=r"SERVING_REPLICAS='kubernetes': .*needs TUNESMITH_SERVING=grpc"):
        Settings.read(serving="none", serving_replicas="kubernetes")


class Mortal:
    """Kills whoever makes the n-th call that changes something, before or after it had its effect."""

    CHANGES = ("put", "create", "replace", "delete", "start", "stop")

    def __init__(self, behind: Any, death: Death) -> None:
        self._behind, self._death = behind, death

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._behind, name)
        if name not in self.CHANGES:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._death.comes_closer(before=True)
            result = method(*args, **kwargs)
            self._death.comes_closer(before=False)
            return result

        return call


class Death:
    """Comes at the n-th instant, once: even ones lie before a change, odd ones after it."""

    def __init__(self, at: int) -> None:
        self.at, self.passed, self.came = at, 0, False

    def comes_closer(self, *, before: bool) -> None:
        now = self.passed
        self.passed += 1
        if now == self.at and not self.came:
            self.came = True
            raise Killed(f"{'before' if before else 'after'} change {now // 2}")


def swap(folder: Path, *, at: int, wrong: Sequence[str] = ()) -> tuple[World, Death]:
    """Promote mv-2 over mv-1 with a death on the way; whoever was killed comes again: promotion and service both."""
    world = World(folder).with_champion()
    world.wrong = set(wrong)
    death = Death(at)
    world.store, world.replicas = Mortal(world.store, death), Mortal(world.replicas, death)
    world.keeper = world.new_keeper()

    def tick() -> None:
        try:
            World.tick(world)
        except Killed:
            world.keeper = world.new_keeper()

    world.clock._tick = tick
    ended = False
    while not ended:
        try:
            world.promote("mv-2")
            ended = True
        except NotAsJudged:
            assert wrong
            ended = True
        except Killed:
            pass
    world.pass_time(GRACE_S * 4)
    return world, death


def instants(folder: Path, wrong: Sequence[str] = ()) -> int:
    _, death = swap(folder, at=-1, wrong=wrong)
    return death.passed


def test_killed_at_any_instant_the_swap_ends_the_same(tmp_path: Path) -> None:
    count = instants(tmp_path / "counted")
    assert count > 20
    for at in range(count):
        world, death = swap(tmp_path / f"{at}", at=at)
        assert death.came, at
        assert world.champion() == "mv-2", at
        assert world.host.names() == {"mv-2"}, at
        assert world.host.most == 2, at
        assert world.wish("mv-2") == "", at
        assert world.champion_was_served_at_every_tick, at


def test_killed_at_any_instant_a_refusal_leaves_the_old_champion_and_its_server_alone(tmp_path: Path) -> None:
    count = instants(tmp_path / "counted", wrong=["mv-2"])
    for at in range(count):
        world, _ = swap(tmp_path / f"{at}", at=at, wrong=["mv-2"])
        assert world.champion() == "mv-1", at
        assert world.host.names() == {"mv-1"}, at
        assert world.host.most == 2, at
        assert world.champion_was_served_at_every_tick, at
