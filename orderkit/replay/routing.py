"""What becomes of each dead letter in a replay: a decision about a batch, with nothing written yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, NamedTuple

from confluent_kafka import Message

from orderkit.dead_letters.dialects import ORIGINAL_VALUE, REPLAY_COUNT
from orderkit.dead_letters.filters import LetterFilter
from orderkit.dead_letters.payload import Payload, PayloadReader
from orderkit.dead_letters.plans import MANY_PLANS
from orderkit.dead_letters.reader import DeadLetterRecord, last_offsets
from orderkit.dead_letters.story import Headers, header_list
from orderkit.errors import OrderkitError
from orderkit.replay.batch import (
    DOUBLED,
    FAILED,
    FILTERED,
    LEFT,
    MISSING,
    MOVED,
    NOWHERE,
    PARKED,
    SPENT,
    UNKNOWN,
    Batch,
)
from orderkit.replay.mending import Mender, Unmended
from orderkit.replay.seen import nothing_seen
from orderkit.replay.ways import BY_KEY, INSTEAD, Way, make_way


class Stays:
    """Says that a dead letter stays where it is, and is tried again by the next replay."""


STAYS = Stays()
Looked = tuple[DeadLetterRecord, Payload | None]  # what a value says, where somebody wants to know


class Lane(NamedTuple):
    """Where letters of one partition go."""

    again: Callable[[int], bool]
    target: str
    partition: int


class Router:
    """Decides about dead letters.

    Args:
        source: the dead-letter topic.
        partitions: gives a topic's number of partitions, 0 when it is not there, or raises what is wrong with it.
        to: the target of all; by default each goes back to where it came from first.
        only: which are meant.
        max_replays: a record that was replayed so often is not replayed again.
        parking: where it goes then; by default it stays.
        mender: mends values on their way.
        reader: reads values, for filter and mender.
    """

    def __init__(
        self,
        source: str,
        partitions: Callable[[str], int],
        *,
        to: str | None = None,
        only: LetterFilter | None = None,
        max_replays: int = 3,
        parking: str | None = None,
        mender: Mender | None = None,
        reader: PayloadReader | None = None,
    ) -> None:
        self._source, self._to, self._parking, self._max = source, to, parking, max_replays
        self._only, self._mender, self._reader = only or LetterFilter(), mender, reader or PayloadReader()
        self._partitions = partitions
        self._looks = not self._only.is_empty or mender is not None
        self._ways: dict[tuple[str, ...], Way] = {}
        self._targets: dict[str, tuple[str, int]] = {}  # of a topic: where letters go, and how many partitions
        self._lanes: dict[tuple[bytes, bytes], Lane] = {}
        self._counts = [(REPLAY_COUNT, str(number).encode()) for number in range(max_replays + 2)]
        self.seen = nothing_seen()

    def route(self, messages: Sequence[Message], limit: float = float("inf")) -> Batch:
        """Decide about dead letters, in order, until `limit` of them are to be written.

        Raises:
            OrderkitError: a target cannot be read, or is the dead-letter topic itself.
        """
        batch = Batch()
        if self._looks or limit < len(messages):
            messages = self._closely(messages, limit, batch)
        else:
            self._plainly(messages, batch)
        batch.taken = {number: offset + 1 for number, offset in last_offsets(messages).items()}
        return batch

    def _closely(self, messages: Sequence[Message], limit: float, batch: Batch) -> Sequence[Message]:
        """Decide about each letter; give those that were decided about."""
        looked = self._look(messages) if self._looks else None
        for i, message in enumerate(messages):
            if len(batch.outgoing) >= limit:
                return messages[:i]
            if looked is not None and looked[i] is None:
                batch.counts[FILTERED] += 1
            else:
                self._decide(message, looked[i] if looked is not None else None, batch)
        return messages

    def _plainly(self, messages: Sequence[Message], batch: Batch) -> None:
        """Decide as `_decide` does, about ordinary letters of ours without a call for each step."""
        last: list[str] = []
        way, count, lanes, out = None, self._counts[1], self._lanes, batch.outgoing
        for message in messages:
            headers: Any = header_list(message)
            names = [name for name, _ in headers]
            if names != last or way is None:
                last, way = names, self._find_way(tuple(names))
            if way.plain:
                (_, topic), (_, partition), (_, offset) = way.place(headers)
                lane = lanes.get((topic, partition)) or self._find_lane(topic, partition)
                if lane is not None and offset.isdigit():
                    if lane.again(int(offset)):
                        batch.counts[DOUBLED] += 1
                    else:
                        carried = [*way.carry(headers), count]
                        out.append((lane.target, message.value(), message.key(), lane.partition, carried, message))
                    continue
            self._decide(message, None, batch)
        batch.counts[MOVED] += len(out) - batch.counts[MOVED] - batch.counts[PARKED]

    def _find_lane(self, topic: bytes | None, partition: bytes | None) -> Lane | None:
        """Find where letters of a partition go, told in our own headers; `None` when that takes a closer look."""
        if not topic or not partition or not partition.isdigit():
            return None
        name, number = topic.decode(errors="replace"), int(partition)
        target, many = self._target(name)
        if not many:
            return None
        lane = Lane(self.seen[name, number, 1].again, target, self._place(number, many))
        self._lanes[topic, partition] = lane
        return lane

    def _place(self, partition: int, many: int) -> int:
        """Say which of a target's partitions a record goes to: the one it came from, or by its key."""
        if self._to is not None or partition < 0:
            return BY_KEY
        return partition if partition < many else INSTEAD

    def _look(self, messages: Sequence[Message]) -> list[Looked | None]:
        """Read letters, and values if somebody wants to know them; what is not meant is `None`."""
        near = [self._only.lies(it.partition(), it.offset()) for it in messages]
        letters = list(map(DeadLetterRecord.of, compress(messages, near)))
        deep = self._only.needs_order or self._mender is not None
        said: Sequence[Payload | None] = [None] * len(letters)
        if deep:
            said = self._reader.read_batch([letter.value for letter in letters])
        meant = (pair if self._only.matches(*pair) else None for pair in zip(letters, said, strict=True))
        return [next(meant) if lies else None for lies in near]

    def _decide(self, message: Message, looked: Looked | None, batch: Batch) -> None:
        headers: Any = header_list(message)
        way = self._find_way(tuple([name for name, _ in headers]))
        plan = way.plan
        if plan.dialect is None:
            batch.counts[UNKNOWN] += 1
            return
        origin = topic, partition, offset = plan.origin(headers)
        count = plan.replay_count(headers)
        if count >= self._max:
            self._park(message, headers, batch)
            return
        if topic == "?" and self._to is None:
            batch.counts[NOWHERE] += 1
            return
        target, many = self._target(topic)
        if not many:
            self._miss(message, topic, batch)
            return
        seen = self.seen[topic, partition, count + 1]
        if partition >= 0 and offset >= 0 and seen.again(offset):
            batch.counts[DOUBLED] += 1
            return
        value, more = message.value(), [self._counts[count + 1]]
        if looked is not None and self._mender is not None:
            mended = self._mend(looked, batch)
            if isinstance(mended, Stays):
                seen.forget(offset)
                return
            if mended != value and plan.value < 0:
                more.append((ORIGINAL_VALUE, value))  # type: ignore[arg-type]
            value = mended
        carried = way.carried(headers, origin, more)
        batch.outgoing.append((target, value, message.key(), self._place(partition, many), carried, message))
        batch.counts[MOVED] += 1

    def _find_way(self, names: tuple[str, ...]) -> Way:
        way = self._ways.get(names)
        if way is None:
            if len(self._ways) >= MANY_PLANS:
                self._ways.clear()
            way = self._ways[names] = make_way(names)
        return way

    def _park(self, message: Message, headers: Headers, batch: Batch) -> None:
        """Send a record that was replayed too often to the parking topic, story and all."""
        if self._parking is None:
            batch.counts[SPENT] += 1
            return
        batch.outgoing.append((self._parking, message.value(), message.key(), BY_KEY, list(headers), message))
        batch.counts[PARKED] += 1

    def _miss(self, message: Message, topic: str, batch: Batch) -> None:
        """Leave a record whose topic is not there for the next replay."""
        batch.counts[MISSING] += 1
        batch.missing[topic] += 1
        batch.stay.append((message.partition() or 0, message.offset() or 0))

    def _mend(self, looked: Looked, batch: Batch) -> bytes | Stays | None:
        """Give the new value; `STAYS` for a dead letter that is not to be moved now."""
        letter, payload = looked
        try:
            value = self._mender.mend(letter, payload) if self._mender else letter.value
        except Unmended as error:
            batch.counts[FAILED] += 1
            batch.errors.append(str(error))
        else:
            if value is not None:
                return value
            batch.counts[LEFT] += 1
        batch.stay.append((letter.partition, letter.offset))
        return STAYS

    def _target(self, origin: str) -> tuple[str, int]:
        """Say where a record from `origin` goes, and how many partitions there are: 0 where that is no topic."""
        found = self._targets.get(origin)
        if found is None:
            name = self._to or origin
            if name == self._source:
                raise OrderkitError(
                    f"Dead letters in {name} come from {name} itself: they would go round in circles. "
                    "Name another topic with --to TOPIC."
                )
            found = self._targets[origin] = name, self._partitions(name)
        return found
