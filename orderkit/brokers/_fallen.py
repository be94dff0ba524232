"""A broker that fell is given up before it comes back."""

from __future__ import annotations

import time

from orderkit.brokers._server import Server
from orderkit.brokers._settings import CONTROLLER, placed

ALONE = {"process.roles": "controller", "broker.heartbeat.interval.ms": "50", "broker.session.timeout.ms": "100"}
TELLING = "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.controller=info"
AT_WORK, GIVEN_UP = "Activated periodic tasks", "Fencing broker 1 "  # what the controller then has in its log
LIMIT, ENOUGH = 15.0, 1.0  # seconds until it is at work, and then until it has given up a broker that was there


def give_up(server: Server, port: int) -> None:
    """Let the controller alone give up the broker that fell.

    Else that one comes back as the leader that it was, takes its transactions up, and is given up only then. Of those
    that were decided and not ended Kafka 4.4 skips the ends: it takes a partition without a leader for a deleted one.
    Nobody reads past such a transaction any more, nor the offsets that were to go with it.

    Args:
        server: a broker's process that has ended without a word.
        port: where the controller listens.
    """
    server.write({**placed({CONTROLLER: "PLAINTEXT"}, {CONTROLLER: port}, server.data.name), **ALONE})
    server.launch(TELLING)
    begun, active = time.monotonic(), float("inf")
    while server.running and (now := time.monotonic()) < min(begun + LIMIT, active + ENOUGH):
        said = server.said
        if GIVEN_UP in said:
            break
        if AT_WORK in said:
            active = min(active, now)
        time.sleep(0.01)
    server.end("stop")  # in good order: the log has it before the disk has
