"""Kafka when things go wrong: brokers that die or refuse, messages that are no events, members that wait long."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
import real_parts as parts
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
from kafka.structs import TopicPartition

from contract.bus_contract import HEADERS, event, events, numbers, receive, receive_nothing
from contract.deadline import eventually
from doubles.fake_clock import FakeClock
from tunesmith.adapters.cloud_events import EncodedEvent
from tunesmith.adapters.kafka_bus import KafkaBus
from tunesmith.adapters.kafka_connection import KafkaConnection, servers_of
from tunesmith.adapters.kafka_dead_letters import _restored, with_origin_and_nulls
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain.errors import Conflict, InvalidSettings, NotFound, Unavailable
from tunesmith.domain.events import DATASET_BUILT, Event
from tunesmith.jobs.consuming import MAX_ATTEMPTS, ConsumerLoop
from tunesmith.ports.bus import Message
from tunesmith.ports.clock import Clock

StartKafka = Callable[..., parts.Kafka]

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")
"""kafka-python leaves the sockets of failed connections to the garbage collector."""


@pytest.fixture(autouse=True)
def lost_sockets_end_here() -> Iterator[None]:
    yield
    gc.collect()


def bus_at(address: str, **options: object) -> KafkaBus:
    connection = KafkaConnection((address,), bootstrap_timeout_s=3.0)
    return KafkaBus(connection, clock=SystemClock(), session_timeout_s=6.0, **options)  # type: ignore[arg-type]


@pytest.fixture
def bus(kafka_broker: str) -> Iterator[KafkaBus]:
    with closing(bus_at(kafka_broker)) as bus:
        yield bus


@pytest.fixture
def topic(bus: KafkaBus) -> str:
    name = f"failures-{uuid4().hex}"
    bus.ensure_topics([name])
    return name


def test_a_broker_that_is_killed_and_comes_back_loses_no_event(own_kafka: StartKafka) -> None:
    broker = own_kafka()
    published: list[int] = []
    refused = threading.Event()
    enough = threading.Event()
    with closing(bus_at(broker.address, delivery_timeout_s=2.0)) as bus:
        bus.ensure_topics(["topic"])

        def publish() -> None:
            number = 0
            while not enough.is_set():
                try:
                    bus.publish("topic", [event(number)])
                except Unavailable:
                    refused.set()
                else:
                    published.append(number)
                    number += 1

        publisher = threading.Thread(target=publish)
        publisher.start()
        with closing(bus.subscribe("group", ["topic"])) as subscription:
            seen: set[int] = set()

            def take() -> int:
                for message in subscription.poll(timeout_s=0.2):
                    seen.update(numbers([message]))
                    with suppress(Conflict):  # the group may have gone on without this member: it comes again
                        subscription.commit(message)
                return len(seen)

            eventually(lambda: take() >= 20)
            broker.kill()
            assert refused.wait(60), "publishing went on without a broker"
            broker.start()
            before = len(published)
            eventually(lambda: len(published) >= before + 20, timeout_s=60)
            enough.set()
            publisher.join()
            eventually(lambda: take() and seen >= set(published), timeout_s=60)


def test_a_broker_that_hangs_is_unavailable_and_no_longer_waited_for_than_allowed(own_kafka: StartKafka) -> None:
    broker = own_kafka()
    with closing(bus_at(broker.address, delivery_timeout_s=1.0)) as bus:
        bus.ensure_topics(["topic"])
        bus.publish("topic", [event(1)])

        broker.pause()
        with pytest.raises(Unavailable, match=broker.address):
            bus.publish("topic", [event(2)])
        num_threads = threading.active_count()
        with closing(bus_at(broker.address)) as other, pytest.raises(Unavailable, match="does not answer as Kafka"):
            other.subscribe("group", ["topic"])
        assert threading.active_count() <= num_threads
        broker.go_on()

        eventually(lambda: _published(bus, 3))


def _published(bus: KafkaBus, number: int) -> bool:
    try:
        bus.publish("topic", [event(number)])
    except Unavailable:
        return False
    return True


def test_no_broker_is_told_at_once_with_the_address() -> None:
    with (
        closing(bus_at(f"127.0.0.1:{parts.free_port()}")) as bus,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:.*start"),
    ):
        bus.ensure_topics(["topic"])


def test_a_missing_topic_that_may_not_be_made_names_the_step_that_makes_it(kafka_broker: str) -> None:
    with closing(bus_at(kafka_broker, may_create_topics=False)) as bus:
        with pytest.raises(NotFound, match=r"'missing'.*tunesmith setup"):
            bus.ensure_topics(["missing"])
        with pytest.raises(NotFound, match="tunesmith setup"):
            bus.subscribe("group", ["missing"])
        with pytest.raises(NotFound, match="tunesmith setup"):
            bus.dead_letters("missing")


def test_a_worker_opens_the_bus_without_connecting_or_importing_the_client(tmp_path: Path) -> None:
    script = (
        "import sys; from tunesmith.platform import Platform; from tunesmith.settings import Settings; "
        "Platform.open(Settings.read()).close(); print('kafka' in sys.modules)"
    )
    env = {"TUNESMITH_DATA": str(tmp_path), "TUNESMITH_BUS": "kafka://far.example:9092"}

    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_a_partition_that_is_paused_for_long_stays_with_its_member(kafka_broker: str, topic: str) -> None:
    connection = KafkaConnection((kafka_broker,))
    with closing(KafkaBus(connection, clock=SystemClock(), session_timeout_s=2.0, max_poll_interval_s=2.0)) as bus:
        bus.publish(topic, events(0, 3, subject="s"))
        with closing(bus.subscribe("group", [topic])) as subscription:
            messages = receive(subscription, 3)

            subscription.retry_later(messages[0], delay_s=5.0)
            again = receive(subscription, 3)

            assert again == messages
            subscription.commit(again[2])  # Conflict if it had been away


def test_failures_at_the_head_of_a_partition_are_counted_over_a_restart(bus: KafkaBus, topic: str) -> None:
    bus.publish(topic, events(0, 3, subject="s"))
    for attempt in (1, 2, 3):
        with closing(bus.subscribe("group", [topic])) as subscription:
            messages = receive(subscription, 3)
            assert [m.attempt for m in messages] == [attempt, 1, 1]
            subscription.note_failure(messages[0])
    with closing(bus.subscribe("group", [topic])) as subscription:
        messages = receive(subscription, 3)
        subscription.note_failure(messages[1])
        subscription.commit(messages[0])
    with closing(bus.subscribe("group", [topic])) as subscription:
        assert [m.attempt for m in receive(subscription, 2)] == [2, 1]


def test_poison_is_given_up_with_its_origin_and_the_rest_is_handled(bus: KafkaBus, topic: str) -> None:
    good = events(0, 190)
    bus.publish(topic, good[:100])
    bus.publish_encoded(topic, [EncodedEvent(list(HEADERS), b"s", b"{") for _ in range(10)])
    bus.publish(topic, good[100:])
    handled: list[int] = []
    consumer = ConsumerLoop(
        bus=bus,
        clock=SystemClock(),
        group="group",
        topics=[topic],
        handlers={DATASET_BUILT: lambda e: handled.append(e.data["number"])},
    )

    consumer.start()
    eventually(lambda: len(handled) >= 190 and len(bus.dead_letters(topic)) >= 10)
    consumer.stop()

    assert sorted(handled) == list(range(190))
    letters = bus.dead_letters(topic)
    assert len(letters) == 10
    assert all((x.topic, x.group, x.attempt) == (topic, "group", 1) and "JSON" in x.error for x in letters)
    assert len({(x.partition, x.offset) for x in letters}) == 10


def test_an_event_that_always_fails_is_given_up_after_its_attempts(bus: KafkaBus, topic: str) -> None:
    bus.publish(topic, events(0, 3, subject="s"))
    handled: list[int] = []

    def handler(e: object) -> None:
        if e.data["number"] == 0:  # type: ignore[attr-defined]
            raise RuntimeError("poison")
        handled.append(e.data["number"])  # type: ignore[attr-defined]

    consumer = ConsumerLoop(
        bus=bus, clock=SystemClock(), group="group", topics=[topic], handlers={DATASET_BUILT: handler}
    )
    consumer.start()
    eventually(lambda: handled == [1, 2])
    consumer.stop()

    (letter,) = bus.dead_letters(topic)
    assert (letter.attempt, letter.error, letter.offset) == (MAX_ATTEMPTS, "RuntimeError: poison", 0)


def test_what_is_parked_is_left_to_the_member_that_its_partition_goes_to(bus: KafkaBus, topic: str) -> None:
    keys = 16
    bus.publish(topic, [event(n, subject=f"s-{n % keys}") for n in range(2 * keys)])
    clock = FakeClock()
    tried_here: list[int] = []
    done_there: set[int] = set()

    def fails_here(e: Event) -> None:
        tried_here.append(e.data["number"])
        raise Unavailable("away from here")

    def succeeds_there(e: Event) -> None:
        done_there.add(e.data["number"])

    def member(handler: Callable[[Event], None], clock: Clock) -> ConsumerLoop:
        return ConsumerLoop(bus=bus, clock=clock, group="group", topics=[topic], handlers={DATASET_BUILT: handler})

    here, there = member(fails_here, clock), member(succeeds_there, SystemClock())
    with closing(bus.subscribe("group", [topic])) as first:
        eventually(lambda: here.handle_batch(first, timeout_s=0.2) or len(tried_here) == keys)
        assert sorted(tried_here) == list(range(keys)), "the second event of each key waits behind its first"
        with closing(bus.subscribe("group", [topic])) as second:
            assignment = second._consumer.assignment  # what has gone over comes whole

            def gone_over() -> bool:
                here.handle_batch(first, timeout_s=0.1)
                there.handle_batch(second, timeout_s=0.1)
                return len(assignment()) == 2 and len({n % keys for n in done_there}) * 2 == len(done_there) > 0

            eventually(gone_over)
            eventually(lambda: not there.handle_batch(second, timeout_s=1.0))
            del tried_here[:]
            for _ in range(3):
                clock.advance(60.0)
                here.handle_batch(first, timeout_s=0.1)

    assert 0 < len(done_there) < 2 * keys
    assert tried_here, "what stayed here is tried again"
    assert not done_there & set(tried_here)
    assert done_there | {n + behind for n in tried_here for behind in (0, keys)} == set(range(2 * keys))


@pytest.mark.parametrize(
    ("headers", "key", "value"),
    [
        pytest.param(HEADERS, None, b"[]", id="no key"),
        pytest.param([], None, None, id="nothing at all"),
        pytest.param([("ce_id", b"\xff"), ("x", b"\xfe")], b"\xff", b"\x00", id="no text anywhere"),
        pytest.param([("ce_specversion", b"2.0"), *HEADERS[1:]], b"s", b"{}", id="newer specversion"),
        pytest.param(
            [(n, b"tunesmith.DatasetBuilt.v2" if n == "ce_type" else v) for n, v in HEADERS],
            b"s",
            b"{}",
            id="newer type",
        ),
    ],
)
def test_what_others_may_write_becomes_a_dead_letter_byte_by_byte(
    bus: KafkaBus,
    kafka_broker: str,
    topic: str,
    headers: list[tuple[str, bytes]],
    key: bytes | None,
    value: bytes | None,
) -> None:
    _produce(kafka_broker, topic, headers, key, value)
    with closing(bus.subscribe("group", [topic])) as subscription:
        (message,) = receive(subscription, 1)
        subscription.dead_letter(message, error="undecodable")
        subscription.commit(message)

        assert message.event is None
        assert message.decode_error
        (letter,) = bus.dead_letters(topic)
        assert letter.message == message

        bus.replay_dead_letters(topic)

        (again,) = receive(subscription, 1)
        assert again.event is None
        assert bus.dead_letters(topic) == []
        receive_nothing(subscription)


def test_a_dead_letter_keeps_headers_without_a_value() -> None:
    headers = [("ce_id", None), ("x", b"1"), ("y", None)]
    record = SimpleNamespace(headers=headers, key=None, value=None, offset=4)
    message = Message("t", 0, 4, "", None, 1, "why")

    letter = with_origin_and_nulls(record, message, group="g", error="e")

    assert all(isinstance(value, bytes) for _, value in (*letter.headers, ("value", letter.value)))
    there = SimpleNamespace(headers=letter.headers, key=letter.key, value=letter.value)
    restored, key, value = _restored(there)
    assert (restored[:3], key, value) == (headers, None, None)


def _produce(
    address: str, topic: str, headers: list[tuple[str, bytes]], key: bytes | None, value: bytes | None
) -> None:
    """Kafka's protocol has more nulls than this producer lets through: only its checks are passed by."""
    producer = KafkaProducer(bootstrap_servers=address)
    try:
        producer.partitions_for(topic)
        future, *_ = producer._accumulator.append(TopicPartition(topic, 0), None, key, value, headers)
        producer._sender.wakeup()
        future.get(timeout=10)
    finally:
        producer.close(timeout=5)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def test_a_secured_broker_lets_in_who_knows_the_password_and_nobody_else(
    own_kafka: StartKafka, authority: trustme.CA, tmp_path: Path
) -> None:
    ca, broker_pem = tmp_path / "ca.pem", tmp_path / "broker.pem"
    authority.cert_pem.write_to_path(str(ca))
    issued = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    broker_pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + b"".join(part.bytes() for part in issued.cert_chain_pems)
    )
    plain, secure, controller = (parts.free_port() for _ in range(3))
    listeners = f"PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}"
    login = "org.apache.kafka.common.security.{}LoginModule required"
    own_kafka(
        port=plain,
        config={
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(broker_pem),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login.format("plain.Plain")} user_plain="secret";',
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{login.format('scram.Scram')};",
        },
    )
    admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{plain}")
    admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion("scram", ScramMechanism.SCRAM_SHA_512, "secret", iterations=4096)]
    )
    admin.close()
    scram = KafkaConnection(
        (f"127.0.0.1:{secure}",), "SASL_SSL", ca=ca, user="scram", password="secret", bootstrap_timeout_s=3.0
    )

    for connection in (scram, replace(scram, user="plain", sasl_mechanism="PLAIN")):
        with closing(KafkaBus(connection, clock=SystemClock())) as bus:
            topic = f"secured-{connection.user}"
            bus.ensure_topics([topic])
            bus.publish(topic, [event(1)])
            with closing(bus.subscribe("group", [topic])) as subscription:
                assert numbers(receive(subscription, 1)) == [1]
        for wrong in (replace(connection, password="guess"), replace(connection, user="nobody")):
            with closing(KafkaBus(wrong, clock=SystemClock())) as bus:
                with pytest.raises(InvalidSettings, match=r"refused the user .*TUNESMITH_KAFKA_PASSWORD") as refused:
                    bus.ensure_topics(["topic"])
                assert "guess" not in str(refused.value)
    for stranger, said in (
        (replace(scram, ca=None), "certificate verify failed"),
        (KafkaConnection(scram.servers, bootstrap_timeout_s=1.0), "does not answer as Kafka without TLS"),
    ):
        with closing(KafkaBus(stranger, clock=SystemClock())) as bus, pytest.raises(Unavailable, match=said):
            bus.ensure_topics(["topic"])


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (KafkaConnection(("127.0.0.1:1",), "SASL_SSL"), "TUNESMITH_KAFKA_USER and"),
        (KafkaConnection(("127.0.0.1:1",), user="me"), "TUNESMITH_KAFKA_USER='me'"),
        (KafkaConnection(("127.0.0.1:1",), "SSL", cert=Path("/c.pem")), "TUNESMITH_KAFKA_CERT and"),
        (KafkaConnection(("127.0.0.1:1",), ca=Path("/ca.pem")), "TUNESMITH_KAFKA_CA"),
        (KafkaConnection(("127.0.0.1:1",), "SSL", ca=Path("/no/ca.pem")), "/no/ca.pem"),
        (KafkaConnection(("kafka.example:9092",)), "TUNESMITH_ALLOW_INSECURE"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_the_fix(connection: KafkaConnection, said: str) -> None:
    with closing(KafkaBus(connection, clock=SystemClock())) as bus, pytest.raises(InvalidSettings, match=said):
        bus.ensure_topics(["topic"])


def test_servers_are_read_from_the_address() -> None:
    assert servers_of("kafka://a,b:19092,[::1]:7") == ("a:9092", "b:19092", "[::1]:7")


@pytest.mark.parametrize(
    "url", ["kafka://", "kafka://a,", "kafka://me:pass@a:1", "kafka://a:x", "kafka://a/b", "sqlite://a"]
)
def test_an_address_without_servers_is_refused_and_a_password_in_it_not_repeated(url: str) -> None:
    with pytest.raises(InvalidSettings, match="kafka://host:9092") as refused:
        servers_of(url)
    assert "pass" not in str(refused.value).split("does not name")[0]
