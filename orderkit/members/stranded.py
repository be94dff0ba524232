"""Clients that have lost all their brokers, and will never find one again.

A broker that is about to stop may say that the cluster has no brokers. A client that believes it has nobody left to ask
(librdkafka #5301), and stands still when everybody else goes on. Only a new client helps.
"""

from __future__ import annotations

import time
from concurrent.futures import Future

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from orderkit.kafka import Connection
from orderkit.kafka.settings import CLIENT_SETTINGS
from orderkit.members.patience import call_aside

RECONNECT = "reconnect.backoff.max.ms"
BRIEFLY = 1.0  # seconds for an answer
SILENCE = 5.0  # seconds without a sign of life after which a client is asked whether it has a broker at all
MARGIN = 2.0  # seconds that a client may need beyond its longest wait between two tries to connect


def is_stranded(connection: Connection, client: Consumer | Producer, topic: str) -> bool:
    """Find out whether the cluster answers, but not this client; takes some seconds when it does not.

    Args:
        connection: the cluster.
        client: may be well, stranded, or cut off like everybody else.
        topic: to ask for.
    """
    if _answers(client, topic, BRIEFLY) or not _answers(connection.admin(), topic, BRIEFLY):
        return False
    tries_every = float(connection.config.get(RECONNECT, CLIENT_SETTINGS[RECONNECT])) / 1000
    return not _answers(client, topic, tries_every + MARGIN) and _answers(connection.admin(), topic, BRIEFLY)


def _answers(client: Consumer | Producer | AdminClient, topic: str, timeout: float) -> bool:
    try:
        client.list_topics(topic, timeout=timeout)
    except KafkaException:
        return False
    return True


class Lookout:
    """Finds out aside whether a client is stranded: nobody waits for it.

    Args:
        connection: the cluster.
        topic: to ask for.
    """

    def __init__(self, connection: Connection, topic: str) -> None:
        self._connection, self._topic = connection, topic
        self._looking: Future[bool] | None = None
        self._heard = time.monotonic()

    def heard(self) -> None:
        """Note that a broker has answered the client."""
        self._heard = time.monotonic()

    def has_lost(self, client: Consumer | Producer) -> bool:
        """Say whether a client that has heard nothing for some seconds is known to be stranded."""
        if time.monotonic() < self._heard + SILENCE or (stranded := self.is_stranded(client)) is None:
            return False
        self.heard()  # or as good as: it has a broker, or will be replaced
        return stranded

    def is_stranded(self, client: Consumer | Producer) -> bool | None:
        """Say what was found out; None while it is not known. To be asked about one client after the other."""
        if self._looking is None:
            self._looking = call_aside(lambda: is_stranded(self._connection, client, self._topic))
        if not self._looking.done():
            return None
        found, self._looking = self._looking.result(), None
        return found

    def finish(self) -> None:
        """Wait until nobody asks the client any more."""
        if self._looking is not None:
            self._looking.exception()
