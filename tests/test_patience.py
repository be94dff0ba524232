"""Leaving a group: it always ends, whatever the broker, the client or an impatient user does meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from helpers import Background, Kit, average_of, soon, take_orders, wait_for, within

from orderkit.brokers import ApacheBroker, EmbeddedBroker
from orderkit.kafka import Connection
from orderkit.members import patience
from orderkit.members.patience import call_aside, call_here, is_answered, leave_group


class Client:
    """Stands in for a client whose answers the real one gives too rarely to wait for."""

    def __init__(self, rounds: int = 0) -> None:
        self.rounds = rounds  # polls until the group has let it go
        self.calls: list[str] = []
        self.free = threading.Event()
        self.free.set()

    def unsubscribe(self) -> None:
        self.calls.append("unsubscribe")

    def memberid(self) -> str | None:
        return "member" if self.rounds > 0 else None

    def poll(self, _timeout: float) -> None:
        self.rounds -= 1
        self.calls.append("poll")

    def close(self) -> None:
        self.free.wait()
        self.calls.append("close")


def test_a_client_closes_only_after_its_last_rebalance() -> None:
    """It unsubscribes, is polled until it is no member any more, and closes after that."""
    client: Any = Client(rounds=3)
    leave_group(client, lambda: client.rounds <= 1)
    assert client.calls == ["unsubscribe", "poll", "poll", "poll", "poll", "close"]


def test_partitions_are_given_back_before_a_client_closes() -> None:
    """A member that was thrown out has no member id, but still a callback to run."""
    client: Any = Client()
    leave_group(client, lambda: client.calls.count("poll") >= 2)
    assert client.calls == ["unsubscribe", "poll", "poll", "poll", "close"]


def test_a_static_member_keeps_its_place() -> None:
    """A static member closes without leaving."""
    client: Any = Client(rounds=3)
    leave_group(client, lambda: False, stays=True)
    assert client.calls == ["close"]


def test_a_client_that_cannot_leave_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither partitions that are never given back nor a close that never ends hold the caller up; it is one line."""
    monkeypatch.setattr(patience, "HANDING_BACK", 0.1)
    client: Any = Client(rounds=10**9)
    client.free.clear()
    with within(5):
        leave_group(client, lambda: False, patience=0.3)
    (line,) = caplog.messages
    assert "will miss it after its session time-out" in line
    client.free.set()
    wait_for(lambda: client.calls[-1] == "close")  # it goes on by itself


def test_an_interrupt_while_leaving_is_one_line_and_the_client_closes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever cannot wait is told what that means, and the client closes all the same."""

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(patience, "is_answered", interrupted)
    client: Any = Client(rounds=1)
    with pytest.raises(KeyboardInterrupt):
        leave_group(client, lambda: True)
    (line,) = caplog.messages
    assert "will miss the client after its session time-out" in line
    wait_for(lambda: client.calls[-1] == "close")


IMPATIENT = """
import logging, os, signal, threading, time
from itertools import islice
from orderkit import EmbeddedBroker, OrderProducer, RetryingConsumer, random_orders

logging.basicConfig(format="%(message)s")
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell said
broker = EmbeddedBroker()
OrderProducer(broker.connection).run(islice(random_orders(1), 100))

def strike():
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)

def silence(order, attempt):
    time.sleep(0.02)
    if order["orderId"] == "40":
        broker.slow(60_000)
        threading.Timer(0.1, strike).start()

try:
    RetryingConsumer(broker.connection, silence).run()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_a_cell_interrupted_twice_comes_back() -> None:
    """In a notebook nobody asks a consumer to stop: two interrupts end its last turn, though the broker is silent."""
    with within(20):
        done = subprocess.run(
            [sys.executable, "-c", IMPATIENT], capture_output=True, text=True, check=False, timeout=100
        )
    assert done.stdout == "interrupted\n", done.stderr
    assert "Traceback" not in done.stderr


FREEZE = """
import ctypes, sys
from orderkit.members import patience

class Client:
    close = staticmethod(lambda: ctypes.PyDLL(None).sleep(60))  # as the real one: in C, with the GIL held

patience.FROZEN = 0.5
patience.leave_group(Client(), lambda: True, stays=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sleep() in its C library")
def test_a_frozen_process_ends_and_shows_where() -> None:
    """When a client freezes with the GIL held, not even Ctrl-C gets through: the process ends, with its stacks."""
    with within(20):
        done = subprocess.run([sys.executable, "-c", FREEZE], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "leave_group" in done.stderr


def test_a_process_that_only_waits_is_not_ended() -> None:
    """Python that runs on, however slowly the client closes, is no frozen process."""
    calm = (
        FREEZE.replace("PyDLL", "CDLL")
        .replace("sleep(60)", "sleep(2)")
        .replace("stays=True", "stays=True, patience=0.5")
    )
    calm = calm.replace("FROZEN = 0.5", "FROZEN = 1")
    done = subprocess.run([sys.executable, "-c", calm], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    assert "session time-out" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_process_without_standard_error_leaves_as_well() -> None:
    """Where there is nowhere to show the stacks, closing goes on without a guard."""
    calm = FREEZE.replace("sleep(60)", "sleep(0)")
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, calm], check=False, timeout=50)
    assert done.returncode == 0


def test_what_a_call_raises_is_kept_for_whoever_asks() -> None:
    """A call made aside, or here, raises in whoever asks for its result."""

    def fail() -> None:
        raise ValueError("told")

    for call in (call_aside, call_here):
        future = call(fail)
        assert is_answered(future, time.monotonic() + 5)
        with pytest.raises(ValueError, match="told"):
            future.result()


@pytest.mark.parametrize("trouble", ["down", "silent"])
def test_a_member_leaves_a_broker_that_dies_meanwhile(trouble: str) -> None:
    """A broker that is gone, or has fallen silent, when a member closes does not hold it; what was committed stays."""
    with EmbeddedBroker(topics={}) as broker:
        kit = Kit(4, broker)
        kit.send_orders(take_orders(40))
        consumer = kit.consumer()
        met = soon(kit.settled)
        while not met():
            consumer.turn()
        if trouble == "down":
            broker.down()
        else:
            broker.slow(60_000)
        with within(12):
            consumer.close()
        broker.slow(0)
        broker.up()
        wait_for(lambda: sum(kit.offsets().values()) == 40)
        assert kit.state().average == average_of(take_orders(40))


@pytest.mark.kafka
def test_a_static_member_is_still_in_its_group(apache: ApacheBroker) -> None:
    """A member with a `group.instance.id` (KIP-345) has its place still after it closed, and takes it up again."""
    kit, admin = Kit(2, apache), apache.connection.admin()
    kit.send_orders(take_orders(10))
    static = Connection(apache.bootstrap, {"group.instance.id": "one"})
    for _ in range(2):
        consumer = kit.consumer(connection=static)
        with Background(consumer):
            wait_for(lambda consumer=consumer: len(consumer.member.parts) == 2)  # type: ignore[misc]
        described = admin.describe_consumer_groups([kit.group])[kit.group].result(20)
        assert [member.group_instance_id for member in described.members] == ["one"]
