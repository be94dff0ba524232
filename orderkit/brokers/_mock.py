"""The C functions of librdkafka's mock cluster, as ctypes sees them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_char_p, c_int, c_int16, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import cimpl

ERROR_TEXT = 512  # bytes librdkafka may fill with a reason
PRODUCER = 0  # rd_kafka_type_t: the cheapest handle that can own a cluster

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


def load() -> ctypes.CDLL | None:
    """Give the library with every function above declared, or `None` where this build of the client hides them."""
    for path in libraries():
        try:
            library = ctypes.CDLL(str(path))
            for name, (returns, takes) in SIGNATURES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = returns, takes
        except (OSError, AttributeError):
            continue
        return library
    return None
