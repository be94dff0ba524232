"""Whether a log is the one that the group's commits are of, and still has what comes next.

Logs are cut: what is older than a topic's retention goes, read or not. And topics are deleted and made anew: the same
name, and other records at the same offsets. A client that resets its offset by itself would go on with the old average
in either case, and nobody would know; so it is not allowed to (`auto.offset.reset=error`), and asks here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicCollection
from confluent_kafka import TopicPartition as Place

from orderkit.consuming.partition import Partition
from orderkit.kafka import Connection
from orderkit.members.commits import Key
from orderkit.members.patience import call_aside
from orderkit.members.records import key_of

log = logging.getLogger("orderkit")

AT_ONCE = 2.0  # seconds for one question
LOOK = 2.0  # seconds from one look at the topics' ids to the next


def topic_ids(connection: Connection, topics: Iterable[str]) -> dict[str, str]:
    """Give the id of each topic (KIP-516), as far as the broker tells it."""
    names = sorted(set(topics))
    admin = connection.admin()
    found = {}
    for name, answer in admin.describe_topics(TopicCollection(names), request_timeout=AT_ONCE).items() if names else ():
        try:
            found[name] = str(answer.result().topic_id)
        except KafkaException as error:  # it may not be described, say
            log.debug("the id of topic %s is not known: %s", name, error.args[0].str())
    return found


def is_another(known: str, told: str) -> bool:
    """Say whether two ids are those of different topics; an empty one says nothing."""
    return bool(known and told and known != told)


class Logs:
    """Looks at the logs of a member's partitions.

    Args:
        connection: the cluster.
        has_ids: whether its topics have ids; those of librdkafka's mock have none.
        parts: the member's partitions.
        expired: called with a partition and offsets whose records are gone unread.
        begun: called with the partition of a log that is gone, and with the one of the log in its place.
    """

    def __init__(
        self,
        connection: Connection,
        has_ids: bool,
        parts: Mapping[Key, Partition],
        expired: Callable[[Partition, range], None],
        begun: Callable[[Partition, Partition], None],
    ) -> None:
        self._connection, self._parts = connection, parts
        self._expired, self._begun = expired, begun
        self._ends: dict[Key, int] = {}  # offsets without a record that the client has come to
        # Partitions whose log has nothing at this offset; or is another one, whatever the offset.
        self._astray: dict[Key, int | None] = {}
        self._asked: Future[dict[str, str]] | None = None  # for the topics' ids
        self._due = 0.0 if has_ids else float("inf")

    def ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Give the id of each topic, as far as the broker tells it."""
        return topic_ids(self._connection, topics) if self._due < float("inf") else {}

    def hear(self, event: Message) -> KafkaError | None:
        """Take in what the client gives instead of a record; give it back if it is not about a log."""
        error = event.error()
        if error and error.code() == KafkaError._PARTITION_EOF:
            self._ends[key_of(event)] = event.offset() or 0
        elif error and error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._astray[key_of(event)] = event.offset()
        else:
            return error
        return None

    def adopt(self, part: Partition, known: str) -> Partition:
        """Take a partition up where its commit left it, or anew if that commit is of another log.

        Args:
            part: as the commit says.
            known: the id of its topic; empty if it is not known.
        """
        if is_another(known, part.log):
            return self._other(part, known, -1, f"the topic was made anew (its id is {known}, and was {part.log})")
        part.log = known or part.log
        return part

    def begin(self, client: Consumer, part: Partition, from_the_end: bool) -> None:
        """Note where a partition without a commit begins; committed, it shows a later member what expired unread.

        Args:
            client: whose partition it is.
            part: if it stands nowhere yet; it goes on so if the broker does not answer.
            from_the_end: what is in the log already is nobody's order.
        """
        if part.came_to >= 0:
            return
        with suppress(KafkaException):
            low, high = client.get_watermark_offsets(Place(*part.key), timeout=AT_ONCE)
            self._ends[part.key] = high if from_the_end else low
            part.reached(self._ends[part.key])

    def move_on(self, client: Consumer) -> list[Partition]:
        """Go on behind what is no record, and in logs that were cut or made anew; give the partitions that moved."""
        self._compare()
        moved: list[Partition] = []
        for key, end in self._ends.items():
            if (part := self._parts.get(key)) and (part.came_to < end or part.next < 0):
                part.reached(end)
                moved.append(part)
        self._ends.clear()
        found = [new for key, at in list(self._astray.items()) if (new := self._look(client, key, at))]
        if found:
            self._go_on(client, found)
        return moved + found

    def _look(self, client: Consumer, key: Key, at: int | None) -> Partition | None:
        """Move a partition that is astray; None when it is not, any more, or when the broker does not answer."""
        part = self._parts.get(key)
        if part is None or at not in (None, part.came_to):  # it was moved already: all are fetched anew when one is
            del self._astray[key]
            return None
        found = self._find(client, part)
        if found:
            del self._astray[key]
        return found

    def _compare(self) -> None:
        """Ask now and then for the topics' ids, aside: in a new log that has grown fast the client just reads on."""
        if self._asked is None:
            if (now := time.monotonic()) >= self._due and self._parts:
                self._due = now + LOOK
                topics = [part.topic for part in self._parts.values()]
                self._asked = call_aside(lambda: topic_ids(self._connection, topics))
        elif self._asked.done():
            known, self._asked = self._asked.result(), None
            parts = self._parts.items()
            self._astray |= {key: None for key, part in parts if is_another(known.get(part.topic, ""), part.log)}

    def _find(self, client: Consumer, part: Partition) -> Partition | None:
        """Move a partition to where its log begins, or put another in its place; None: the broker does not answer."""
        try:
            low, high = client.get_watermark_offsets(Place(*part.key), timeout=AT_ONCE)
        except KafkaException:
            return None
        known = self.ids([part.topic]).get(part.topic, "")
        if part.came_to >= low or is_another(known, part.log):
            ids = f" (its id is {known}, and was {part.log})" if is_another(known, part.log) else ""
            return self._other(part, known, low, f"the log goes from {low} to {high}, and is another one{ids}")
        for gap in part.expire(low):
            told = f"{len(gap)} records" if len(gap) > 1 else "1 record"
            log.warning("%s: %s expired unread, from offset %d on; the log begins at %d", part, told, gap.start, low)
            self._expired(part, gap)
        return part

    def _other(self, part: Partition, known: str, low: int, why: str) -> Partition:
        log.warning(
            "%s: %s; the average up to offset %d, %s over %d orders, stays with the old one, and a new one begins",
            part, why, part.next, part.average.rounded(), part.average.count,
        )  # fmt: skip
        again = part.anew(known, low)
        self._begun(part, again)
        return again

    def _go_on(self, client: Consumer, moved: list[Partition]) -> None:
        """Fetch partitions from where they stand now, and the others from where they are."""
        there = [place_of(part) for part in moved]
        try:
            client.assign([place_of(one) for one in self._parts.values()])
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise
            client.incremental_unassign(there)  # the group moves partitions one by one (KIP-429, KIP-848)
            client.incremental_assign(there)


def place_of(part: Partition, beginning: int = OFFSET_BEGINNING) -> Place:
    """Give from where to fetch a partition; `beginning`, as the client takes it, if nobody has come anywhere."""
    return Place(*part.key, part.came_to if part.came_to >= 0 else beginning)
