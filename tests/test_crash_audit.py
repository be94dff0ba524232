"""The audit of the crash lab: each fault is planted, and has to be found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest
from confluent_kafka import TopicPartition
from helpers import Kit, Record, soon

from orderkit.account.average import UNIT, RunningAverage
from orderkit.account.tally import FINISHED
from orderkit.consumer import RetryingConsumer
from orderkit.crash.again import again
from orderkit.crash.ahead import Ahead
from orderkit.crash.audit import KEEP_ORDER, Verdict, judge
from orderkit.crash.evidence import Evidence, Trail, gather
from orderkit.crash.plan import CrashPlan
from orderkit.dead_letters import header_list, read_topic
from orderkit.engines import ENGINES
from orderkit.orders.order import Order
from orderkit.producer import OrderProducer

PLAN = CrashPlan(5, orders=80, partitions=2)


class Crash(BaseException):
    """The process is dead."""


class World:
    """A run of the kit that went well, and what it left behind.

    Args:
        orders: so many are done with before it ends.
        delivery: of its consumers.
        deaths: numbers of the calls of the handler that end a consumer; another one goes on.
    """

    def __init__(self, orders: int = PLAN.orders, delivery: str = "at-least-once", deaths: Sequence[int] = ()) -> None:
        self._delivery, self._deaths = delivery, deaths
        self.kit = Kit(2)
        self.trail = Trail()
        producer = OrderProducer(self.kit.connection, self.kit.topic, key="product", faults=PLAN.faults)
        produced = producer.run(PLAN.stream())
        for number, tally in produced.where.items():
            self.trail.acked.update((number, offset) for offset in tally.offsets(FINISHED))
        for _ in deaths:
            self._live_and_die()
        last, settled = self._consumer(), self.kit.settled
        # At most once all may be committed while an order waits for its next attempt: whoever ends then gives it back.
        last.run(orders=orders, until=(lambda: last.settled and settled()) if deaths else None)

    def _consumer(self) -> RetryingConsumer:
        consumer = self.kit.consumer(self._handle, policy=PLAN.policy, delivery=self._delivery, batch=4)
        consumer.member.commits.now = Ahead(consumer.member.commits, self.trail.risk).now  # type: ignore[method-assign]
        return consumer

    def _live_and_die(self) -> None:
        consumer, late = self._consumer(), soon(lambda: False)
        with suppress(Crash):
            while not late():
                consumer.turn()
        member = consumer.member
        member._on_lost(member.client, [TopicPartition(*key) for key in member.parts])  # nothing is committed any more
        member.close(10)

    def _handle(self, order: Order, attempt: int) -> None:
        done = False
        try:
            PLAN.faults.strike(order, attempt)
            done = True
        finally:
            self.trail.handled.append((len(self.trail.handled) + 1, order["orderId"], attempt, done))
            if len(self.trail.handled) in self._deaths:
                raise Crash

    def evidence(self) -> Evidence:
        return gather(self.kit.connection, self.kit.topic, self.kit.dead_letters, self.kit.group)

    def verdict(self) -> Verdict:
        return judge(PLAN, self.evidence(), self.trail)

    def write_again(self, topic: str, spoil: Callable[[bytes], bytes] = bytes) -> None:
        """Write the first record of a topic once more."""
        message = next(read_topic(self.kit.connection, topic))
        record = Record(spoil(message.value() or b""), message.key(), header_list(message))
        kit = Kit()
        kit.topic = topic
        kit.send([record])


@cache
def intact() -> World:
    """Give the world that no test breaks."""
    return World()


def judged(**changes: object) -> Verdict:
    """Judge the intact world with its evidence changed."""
    return judge(PLAN, replace(intact().evidence(), **changes), intact().trail)  # type: ignore[arg-type]


def test_a_run_that_went_well_keeps_every_promise() -> None:
    """Nothing is found where there is nothing, and every order is in the account."""
    verdict = intact().verdict()
    for mode in ("at-least-once", "exactly-once", "at-most-once"):
        assert verdict.broken(mode) == []
    assert verdict.produced == PLAN.orders == verdict.averaged + verdict.dead
    assert verdict.dead == sum(PLAN.dies(order) for order in PLAN.stream()) > 0
    assert verdict.exact


def test_a_missing_dead_letter_is_an_order_lost() -> None:
    """An order that is neither averaged nor in the dead-letter topic is lost."""
    verdict = judged(letters=intact().evidence().letters[1:])
    assert verdict.lost == 1
    assert "lost 1" in verdict.broken("at-least-once")
    assert "lost 1, of 0 at risk" in verdict.broken("at-most-once")


def test_at_most_once_may_lose_what_was_committed_ahead_and_no_more() -> None:
    """Lost is what a consumer had committed before it was done with it when it died; one order more is a broken law."""
    world = World(delivery="at-most-once", deaths=(17, 30))
    verdict = world.verdict()
    assert verdict.broken("at-most-once") == []
    assert 0 < verdict.lost <= verdict.at_risk < PLAN.orders - 20
    handled = {name for _, name, _, _ in world.trail.handled}
    assert verdict.lost > sum(order["orderId"] not in handled for order in PLAN.stream() if not PLAN.dies(order))
    for many in (verdict.at_risk, verdict.at_risk - verdict.lost + 1):
        for place in sorted(world.trail.ahead)[:many]:
            world.trail.ahead.discard(place)
    assert f"lost {verdict.lost}, of" in str(world.verdict().broken("at-most-once"))


def test_what_the_group_says_it_lost_is_audited() -> None:
    """Its own word covers what the topics show to be lost; one too few is a broken promise, and so is a false one."""
    world = World(delivery="at-most-once", deaths=(17, 30))
    evidence = world.evidence()
    verdict = judge(PLAN, evidence, world.trail)
    assert 0 < verdict.lost <= verdict.told <= verdict.lost + verdict.dead
    silent = replace(evidence, state=replace(evidence.state, lost=verdict.lost - 1))
    (broken,) = judge(PLAN, silent, world.trail).broken("at-most-once")
    assert broken == f"lost {verdict.lost}, and the group tells of {verdict.lost - 1}"
    alarmed = judged(state=replace(intact().evidence().state, lost=1))
    assert alarmed.broken("at-least-once") == alarmed.broken("exactly-once") == ["the group tells of 1 lost"]


def test_a_clean_run_leaves_nothing_at_risk() -> None:
    """The last commit carries the average: no order is ahead of it."""
    world = World(delivery="at-most-once")
    assert world.trail.ahead == set()
    assert world.verdict().broken("at-most-once") == []


def with_average(change: Callable[[RunningAverage], RunningAverage]) -> Verdict:
    """Judge the intact world with another average committed."""
    state = intact().evidence().state
    return judged(state=replace(state, average=change(state.average)))


def less(average: RunningAverage, price: float) -> RunningAverage:
    """Take one price out of an average."""
    one = RunningAverage()
    one.add(price)
    return RunningAverage(average.count - one.count, average.total - one.total)


def test_an_order_missing_from_the_average_is_lost() -> None:
    """A commit that went past an order without adding it is found."""
    verdict = with_average(lambda average: less(average, 3.0))
    assert verdict.lost == 1
    assert not verdict.exact


def test_a_cent_too_much_is_found() -> None:
    """The right number of orders with a sum that is a cent off is no exact average."""
    verdict = with_average(lambda average: replace(average, total=average.total + int(0.01 * UNIT)))
    assert verdict.lost == verdict.doubled == 0
    assert any(told.startswith("average") for told in verdict.broken("at-least-once"))


def test_an_order_counted_twice_is_found() -> None:
    """One order too many in the average is doubled, in every mode."""
    verdict = with_average(lambda average: RunningAverage(average.count + 1, average.total + int(UNIT)))
    for mode in ("at-least-once", "exactly-once", "at-most-once"):
        assert "doubled 1" in verdict.broken(mode)


def test_an_order_counted_twice_is_found_though_another_is_lost() -> None:
    """The average has the right number of orders, and one of them stands in for one that nobody handled."""
    world = intact()
    one = next(name for _, name, _, done in world.trail.handled if done)
    trail = replace(world.trail, handled=[call for call in world.trail.handled if call[1] != one])
    verdict = judge(PLAN, world.evidence(), trail)
    assert (verdict.doubled, verdict.lost) == (1, 1)
    for mode in ("at-least-once", "exactly-once", "at-most-once"):
        assert "doubled 1" in verdict.broken(mode)


def test_an_order_that_is_dead_and_averaged_is_found() -> None:
    """A dead letter of an order that is in the average, too, makes that order doubled."""
    world = intact()
    dead = {letter.origin[1:] for letter in world.evidence().letters}
    place, (key, value) = next(item for item in world.evidence().records.items() if item[0] not in dead)
    letter = world.evidence().letters[0]
    origin = {"partition": str(place[0]), "offset": str(place[1])}
    forged = replace(letter, key=key, value=value, story={**letter.story, **origin})
    verdict = judged(letters=[*world.evidence().letters, forged])
    assert verdict.doubled == 1
    assert verdict.astray == 1


def test_a_dead_letter_written_twice_is_found_in_the_topic() -> None:
    """It may happen at least once, and never exactly once."""
    world = World()
    world.write_again(world.kit.dead_letters)
    verdict = world.verdict()
    assert verdict.repeated == 1
    assert verdict.broken("at-least-once") == []
    assert verdict.broken("exactly-once") == verdict.broken("at-most-once") == ["repeated 1"]


def test_a_dead_letter_with_other_bytes_is_found() -> None:
    """A letter that is not its order byte for byte is changed."""
    world = World()
    world.write_again(world.kit.dead_letters, lambda value: value + b"!")
    assert world.verdict().changed == 1


def test_an_order_written_twice_is_found() -> None:
    """The producer's own doubles are told from the consumer's."""
    world = World()
    world.write_again(world.kit.topic)
    verdict = world.verdict()
    assert verdict.written_twice == 1
    assert verdict.in_flight == 1


def test_an_acknowledged_order_that_is_not_there_is_found() -> None:
    """What the broker acknowledged has to be in the topic, and so has every order of the plan."""
    evidence = intact().evidence()
    last = max(evidence.records)
    records = {place: record for place, record in evidence.records.items() if place != last}
    trail = replace(intact().trail, acked={last})
    assert judge(PLAN, replace(evidence, records=records), trail).unwritten == 2


def test_an_order_handled_before_an_older_one_of_its_key_is_found() -> None:
    """The order of a key is the order of its offsets; engines that give it up are not held to it."""
    world = intact()
    good = {name: at for at, name, _, done in world.trail.handled if done}
    lamps = [order["orderId"] for order in PLAN.stream() if order["product"] == "Lamp" and order["orderId"] in good]
    first, second = lamps[:2]
    swap = {first: good[second], second: good[first]}
    handled = [(swap.get(name, at) if done else at, name, n, done) for at, name, n, done in world.trail.handled]
    trail = replace(world.trail, handled=handled)
    verdict = judge(PLAN, world.evidence(), trail)
    assert verdict.out_of_order == 1
    for mode in ("at-least-once", "exactly-once", "at-most-once"):
        assert verdict.broken(mode) == ["out of order 1"]
    assert verdict.broken("exactly-once", stood_still=True) == ["out of order 1"]
    assert verdict.broken("at-most-once", stood_still=True) == []
    assert judge(replace(PLAN, engine="key-parking"), world.evidence(), trail).out_of_order == 1
    assert judge(replace(PLAN, engine="topics"), world.evidence(), trail).out_of_order == 0


def test_engines_that_keep_the_order_are_called_what_they_are() -> None:
    """The order of an engine whose name nobody knows would never be looked at."""
    assert set(KEEP_ORDER) == set(ENGINES) - {"topics"}


def test_an_attempt_made_twice_breaks_at_most_once_only() -> None:
    """The handler sees an order again after a crash; at most once promises that it does not."""
    world = intact()
    trail = replace(world.trail, handled=[*world.trail.handled, world.trail.handled[0]])
    verdict = judge(PLAN, world.evidence(), trail)
    assert verdict.handled_again == 1
    assert verdict.broken("exactly-once") == []
    assert verdict.broken("at-most-once") == ["handled again 1"]


def test_what_was_handled_again_is_told_with_what_led_to_it() -> None:
    """Each call made twice has its place and the time since the first one, among the notes of the workers."""
    world = intact()
    at, name, attempt, done = world.trail.handled[0]
    (place,) = (where for where, (_, value) in world.evidence().records.items()
                if PLAN.values()[value or b""]["orderId"] == name)  # fmt: skip
    handled = [*world.trail.handled, (at + 2_500_000_000, name, attempt, done)]
    notes = [(at - 1_000_000_000, "consumer-1", "has orders[0] from 7")]
    told = again(PLAN, world.evidence(), replace(world.trail, handled=handled, notes=notes))
    assert told == [
        "  0.000 s consumer-1: has orders[0] from 7",
        f"  3.500 s handler: {place[0]}@{place[1]} again, 2.500 s after the first time",
    ]
    assert again(PLAN, world.evidence(), world.trail) == []


def test_an_order_that_dies_against_the_seed_is_found() -> None:
    """A healthy order among the dead is astray, unless a crash took its attempts."""
    world = intact()
    evidence = world.evidence()
    dead = {letter.origin[1:] for letter in evidence.letters}
    alive = {place: PLAN.values()[value or b""] for place, (_, value) in evidence.records.items() if place not in dead}
    place = next(place for place, order in alive.items() if not PLAN.fails(order, 3))
    (key, value), letter = evidence.records[place], evidence.letters[0]
    story = {**letter.story, "partition": str(place[0]), "offset": str(place[1])}
    state = replace(evidence.state, average=less(evidence.state.average, alive[place]["price"]))
    forged = replace(letter, key=key, value=value, story=story)
    killed = replace(forged, story={**story, "exception": "orderkit.retry.Killed"})
    wounded = replace(world.trail, wounds=[0])
    for last, trail, astray in ((forged, wounded, 1), (killed, world.trail, 1), (killed, wounded, 0)):
        found = replace(evidence, letters=[*evidence.letters, last], state=state)
        assert judge(PLAN, found, trail).astray == astray


def test_orders_left_behind_are_in_flight_and_not_lost() -> None:
    """A group that did not get to the end has lost nothing yet, and is not done either."""
    verdict = World(PLAN.orders - 2).verdict()
    assert verdict.in_flight == 2
    assert verdict.lost == 0


@pytest.mark.parametrize("seed", range(30))
def test_the_seed_alone_says_which_orders_die(seed: int) -> None:
    """The bytes that a plan expects in the topic name each order once, spoiled ones included."""
    plan = CrashPlan(seed, orders=200)
    assert len(plan.values()) == plan.orders
    assert 0 < sum(map(plan.dies, plan.stream())) < plan.orders / 2
