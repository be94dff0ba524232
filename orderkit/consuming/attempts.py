"""Delivery attempts: the handler is called, and what it raises is decided and carried out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from orderkit.account.block import Noted
from orderkit.account.tally import AVERAGED, DEAD, RETRY, SKIPPED
from orderkit.consuming.backlog import Backlog
from orderkit.consuming.loop import Loop, broken
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.delivery import Mode
from orderkit.engines import Answer, Engine
from orderkit.errors import OrderkitError
from orderkit.members.group import GroupMember
from orderkit.orders.order import Order
from orderkit.retry import DeadLetter, Failure, Killed, Reason, Retry, Stop
from orderkit.retry.budget import Budget

# Looked up once: an Enum takes as long to find a member as a call takes.
AGAIN, ASIDE, DONE, HOLD = Answer.AGAIN, Answer.ASIDE, Answer.DONE, Answer.HOLD


class Attempts(Loop):
    """A loop that knows how to give the records of a partition their attempts, in order."""

    member: GroupMember
    engine: Engine
    delivery: Mode
    _until = 0.0  # the end of this slice on the monotonic clock; 0 stops handling at the next record
    _good_from = 0  # all before this record of the batch is counted in the budget

    def _attempt_all(self, part: Partition, batch: Backlog, attempts: list[Noted], aside: set[int]) -> int:
        """Attempt records, in order; note what is not a success at once, and return how many are out of the way."""
        handler: Callable[[Any, int], object] = self.handler  # a cast at each call would cost as much as the call
        clock, orders, offsets = time.monotonic, batch.orders, batch.offsets
        failed, lines = part.failed, part.park.lines
        self._good_from = 0
        stop = int(min(len(orders), max(0, self._limit - self.ledger.finished)))
        if stop and part.suspected(self.policy.max_attempts):
            stop = 1  # one by one, each announced: if it kills us, the next start knows
            self.delivery.announce(part, offsets[0])
            if part.gone:
                return 0
        for i in range(stop):
            if clock() >= self._until:
                return i
            order: Any = orders[i]
            if lines or (failed and offsets[i] in failed):
                answer = self._attempt_again(part, batch, i, attempts)
            elif order.__class__ is not dict:  # it could not be decoded, and is never tried again
                answer = self._failed(part, batch, i, History(), order, attempts)
            else:
                try:
                    handler(order, 1)
                    continue
                except Exception as error:  # whatever the handler raises, `decide` has an answer
                    history = History()
                    answer = self._failed(part, batch, i, history, error, attempts)
                # Not within the `except`, or the next attempt's error would pass for a result of this one.
                if answer is AGAIN:
                    answer = self._attempt(part, batch, i, history, attempts)
            if answer is HOLD:
                return i
            self._good_from = i + 1
            if answer is ASIDE:
                aside.add(i)
        return stop

    def _attempt_again(self, part: Partition, batch: Backlog, i: int, attempts: list[Noted]) -> Answer:
        """Attempt a record that may have failed before, or may have to wait for another of its key."""
        answer = self._ask(part, batch.offsets[i], lambda: self.engine.before(part, batch, i))
        if answer is not DONE:
            return answer
        answer, order, history = AGAIN, batch.orders[i], part.failed.get(batch.offsets[i]) or History()
        if history.killed:
            history.killed, part.deaths = False, 0  # what did it is found
            error = Killed("the consumer ended during this attempt")
            answer = self._failed(part, batch, i, history, error, attempts)
        elif isinstance(order, Failure):
            return self._failed(part, batch, i, history, order, attempts)
        elif history.due > time.monotonic():
            self.member.hold(part, history.due)
            return HOLD
        return self._attempt(part, batch, i, history, attempts) if answer is AGAIN else answer

    def _attempt(self, part: Partition, batch: Backlog, i: int, history: History, attempts: list[Noted]) -> Answer:
        """Attempt a record until it has its fate, or has to wait."""
        answer, order, handler = AGAIN, cast(Order, batch.orders[i]), self.handler
        while answer is AGAIN:
            try:
                handler(order, history.attempts + 1)
            except Exception as error:  # whatever the handler raises, `decide` has an answer
                answer = self._failed(part, batch, i, history, error, attempts)
            else:
                answer = DONE
                if history.attempts:
                    attempts.append((i, time.time(), history.attempts + 1, AVERAGED, 0.0, None, None))
                    part.failed.pop(batch.offsets[i], None)
                    if self.budget:
                        self._count_good(i + 1)
        return answer

    def _failed(
        self, part: Partition, batch: Backlog, i: int, history: History, error: Exception, attempts: list[Noted]
    ) -> Answer:
        """Carry out what `decide` says of a failed attempt."""
        if self.budget:
            self._count_good(i)
        order, now = batch.orders[i], time.time()
        history.failed(now)
        reason, decision = self._judge(order, error, history)
        told = f"{type(error).__name__}: {error!s}"
        if isinstance(decision, Retry):
            attempts.append((i, now, history.attempts, RETRY, decision.after, reason, told))
            history.wait = decision.after
            if decision.after <= 0 and time.monotonic() < self._until:
                return AGAIN
            return self._wait(part, batch, i, history)
        if isinstance(decision, Stop):
            history.attempts -= 1  # the attempt does not count against the order
            self._stop_at(f"{part}@{batch.offsets[i]}", reason, error)
            part.failed[batch.offsets[i]] = history
            return HOLD
        if isinstance(decision, DeadLetter):
            if not self._affordable(reason, history):
                after = cast(Budget, self.budget).wait(history)
                attempts.append((i, now, history.attempts, RETRY, after, reason, told))
                part.failed[batch.offsets[i]] = history
                return self._ask(part, batch.offsets[i], lambda: self.engine.brake(part, batch, i, history, after))
            self.letters.send(batch.messages[i], part, reason, error, history)
            part.dead, fate = part.dead + 1, DEAD
        else:
            part.skipped, fate = part.skipped + 1, SKIPPED
        attempts.append((i, now, history.attempts, fate, 0.0, reason, told))
        part.failed.pop(batch.offsets[i], None)
        return DONE

    def _count_good(self, until: int) -> None:
        """Tell the budget that all before `until` in this batch was averaged, since it was last told."""
        if self.budget:
            self.budget.good(max(0, until - self._good_from))
        self._good_from = until

    def _affordable(self, reason: Reason, history: History) -> bool:
        """Whether the budget has room for a dead letter; a probe's own goes through if no attempt can help it."""
        hopeless = history.held and reason in ("poison", "permanent")
        return self.budget is None or self.budget.allows() or hopeless

    def _wait(self, part: Partition, batch: Backlog, i: int, history: History) -> Answer:
        """Let the engine wait; without a back-off the slice is over, and the record comes next."""
        part.failed[batch.offsets[i]] = history
        if history.wait > 0:
            return self._ask(part, batch.offsets[i], lambda: self.engine.wait(part, batch, i, history, history.wait))
        self.member.hold(part, time.monotonic())
        return HOLD

    def _ask(self, part: Partition, offset: int, question: Callable[[], Answer]) -> Answer:
        """Ask the engine, and hold it to its word: what it sets aside is parked, or on its way to another topic."""
        written = part.points.written
        try:
            answer = question()
            if not isinstance(answer, Answer):
                raise TypeError(f"{answer!r} is no answer")
            if answer is ASIDE and offset not in part.park and part.points.written == written:
                raise LookupError("the order was set aside, and is kept nowhere")
        except OrderkitError:
            raise
        except Exception as error:  # an engine may be the reader's own
            self.broken = broken(self.engine, error, f" at {part}@{offset}")
            return HOLD
        return answer
