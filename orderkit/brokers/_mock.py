"""The C functions of librdkafka's mock cluster, as ctypes sees them; a cluster of it, started and ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, c_char_p, c_int, c_int16, c_int32, c_size_t, c_void_p, create_string_buffer
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import cimpl

from orderkit.errors import OrderkitError

ERROR_TEXT = 512  # bytes librdkafka may fill with a reason
PRODUCER = 0  # rd_kafka_type_t: the cheapest handle that can own a cluster
REQUESTS = {
    "Produce": 0,
    "Fetch": 1,
    "ListOffsets": 2,
    "Metadata": 3,
    "OffsetCommit": 8,
    "OffsetFetch": 9,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "LeaveGroup": 13,
    "SyncGroup": 14,
    "InitProducerId": 22,
    "AddPartitionsToTxn": 24,
    "EndTxn": 26,
    "TxnOffsetCommit": 28,
}
NEWEST = {"Produce": 9, "Fetch": 11}  # from the next version on, the mock crashes on a partition without a leader

# Function: what it returns, and what it takes.
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (c_void_p, []),
    "rd_kafka_conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "rd_kafka_new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "rd_kafka_destroy": (None, [c_void_p]),
    "rd_kafka_mock_cluster_new": (c_void_p, [c_void_p, c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (c_char_p, [c_void_p]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [c_void_p, c_int32]),
    "rd_kafka_mock_set_apiversion": (c_int, [c_void_p, c_int16, c_int16, c_int16]),
    "rd_kafka_mock_topic_create": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "rd_kafka_mock_topic_set_error": (None, [c_void_p, c_char_p, c_int]),
    "rd_kafka_mock_partition_set_leader": (c_int, [c_void_p, c_char_p, c_int32, c_int32]),
    "rd_kafka_mock_broker_set_down": (c_int, [c_void_p, c_int32]),
    "rd_kafka_mock_broker_set_up": (c_int, [c_void_p, c_int32]),
    "rd_kafka_mock_broker_set_rtt": (c_int, [c_void_p, c_int32, c_int]),
    "rd_kafka_mock_clear_request_errors": (None, [c_void_p, c_int16]),
    "rd_kafka_mock_push_request_errors_array": (None, [c_void_p, c_int16, c_size_t, c_void_p]),
}


def libraries() -> Iterator[Path]:
    """Name the files that may hold the functions: the client itself, else the library its wheel carries beside it."""
    yield Path(cimpl.__file__)
    package = Path(confluent_kafka.__file__).parent
    for folder in (package.parent / "confluent_kafka.libs", package / ".dylibs", package.parent / ".dylibs"):
        yield from sorted(folder.glob("*rdkafka*"))


def load() -> CDLL | None:
    """Give the library with every function above declared, or `None` where this build of the client hides them."""
    for path in libraries():
        try:
            library = CDLL(str(path))
            for name, (returns, takes) in SIGNATURES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = returns, takes
        except (OSError, AttributeError):
            continue
        return library
    return None


@contextmanager
def no_signals() -> Iterator[None]:
    """Let threads that are started meanwhile take no signal.

    A signal goes to any thread of a process. One that wakes the cluster's own thread would end it, and with it the
    cluster: clients would hear nothing any more, and `close` would wait for ever.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(library: CDLL, brokers: int) -> tuple[int, int]:
    """Start a cluster; give the handle that owns it, and the cluster itself.

    Raises:
        OrderkitError: it cannot start.
    """
    reason = create_string_buffer(ERROR_TEXT)
    settings = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(settings, b"log_level", b"0", reason, len(reason))
    with no_signals():
        handle = library.rd_kafka_new(PRODUCER, settings, reason, len(reason))
        cluster = library.rd_kafka_mock_cluster_new(handle, brokers) if handle else None
    if not cluster:
        raise OrderkitError(f"The embedded broker cannot start: {reason.value.decode() or 'no free port'}.")
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)  # default 3,000: a demo would wait for nobody
    for request, newest in NEWEST.items():
        library.rd_kafka_mock_set_apiversion(cluster, REQUESTS[request], 0, newest)
    return handle, cluster


def destroy(library: CDLL, cluster: int, handle: int, owner: int) -> None:
    """End a cluster and its handle, in the process that started it and in no other."""
    if os.getpid() == owner:  # a fork has the pointers, but none of librdkafka's threads
        library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(handle)
