"""The whole system on one broker, in the background: producer, consumer, faults and ledger."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

from orderkit.account.audit import account, dead_letter_origins
from orderkit.account.report import Report
from orderkit.brokers import Broker, EmbeddedBroker
from orderkit.consumer import RetryingConsumer
from orderkit.consuming.consumers import open_consumer
from orderkit.consuming.loop import Handler, accept
from orderkit.consuming.share import ShareGroupConsumer
from orderkit.dead_letters import DLQ_CONFIG
from orderkit.engines import ENGINES
from orderkit.errors import Interrupted, OrderkitError
from orderkit.kafka import Connection
from orderkit.ledger import Ledger
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order, random_orders
from orderkit.producer import OrderProducer, Produced
from orderkit.retry import RetryPolicy

if TYPE_CHECKING:
    import pandas as pd

ORDER_BYTES = 45  # the longest random order with its key, in single-object encoding
LETTER_BYTES = 600  # its dead letter, with the story in headers: 455 at the most, under a name of eight letters
PATIENCE = 20.0  # seconds that an interrupted run has to commit what is done


class Run:
    """Produces orders and consumes them, each in a thread of its own, on topics of its own.

    Args:
        broker: an open broker, or a `Connection` to one.
        orders: how many.
        seed: decides the orders and, through `faults`, their fates.
        rate: orders a second; 0 for as fast as it goes.
        faults: what goes wrong; may be changed while orders flow.
        policy: how often, how long, and what then.
        handler: the reader's own code, called after the faults have had their turn.
        engine: how a retry waits.
        wire: the wire format of the orders.
        partitions: of the run's topics.
        name: ends the names of topics and group; by default a fresh one, so that runs never mix.
    """

    def __init__(
        self,
        broker: Broker | Connection,
        *,
        orders: int = 500,
        seed: int = 7,
        rate: float = 0.0,
        faults: Faults | None = None,
        policy: RetryPolicy | None = None,
        handler: Handler = accept,
        engine: str = "pause",
        wire: str = "single",
        partitions: int = 4,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        self.name = name or uuid.uuid4().hex[:8]
        self.topic = f"orders.{self.name}"
        self.dead_letters = f"orders.{self.name}.dlq"
        self.group = f"orderkit.{self.name}"
        self.orders = orders
        self.seed = seed
        self.faults = faults or Faults(seed)
        self.ledger = Ledger()
        self.started = False
        self.finished = False
        self.error: BaseException | None = None
        self._broker = broker
        self._handler = handler
        self.connection = broker if isinstance(broker, Connection) else broker.connection
        self._create_topics(partitions, _retry_topics(engine, self.topic, self.group, policy))
        codec = Codec(wire)
        self.producer = OrderProducer(self.connection, self.topic, codec=codec, faults=self.faults)
        self.producer.every = 1 / rate if rate else 0.0
        self.consumer = self._open_consumer(policy=policy, engine=engine, codec=codec, **settings)
        self._threads = [self._thread("producer", self._produce), self._thread("consumer", self._consume)]

    def _open_consumer(self, **settings: Any) -> RetryingConsumer | ShareGroupConsumer:
        """Open the consumer of the run's own topics, with its ledger and its seed."""
        return open_consumer(
            self.connection,
            self._handle,
            group=self.group,
            topic=self.topic,
            dead_letters=self.dead_letters,
            ledger=self.ledger,
            seed=self.seed,
            **settings,
        )

    def _thread(self, kind: str, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._guard, args=(work,), name=f"{kind}-{self.name}", daemon=True)

    def _create_topics(self, partitions: int, retry_topics: list[str]) -> None:
        """Create the run's topics; an embedded broker is asked first whether all orders will find room."""
        if isinstance(self._broker, EmbeddedBroker):
            self._broker.create_topics(dict.fromkeys([self.topic, self.dead_letters, *retry_topics], partitions))
            self._broker.room_for(self.orders, ORDER_BYTES, self.topic)
            return
        self.connection.check_partitions(partitions)
        self.connection.create_topics({self.topic: partitions})
        self.connection.create_topics({self.dead_letters: partitions}, DLQ_CONFIG)

    def _handle(self, order: Order, attempt: int) -> None:
        self.faults.strike(order, attempt)
        self._handler(order, attempt)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # it is raised again by `wait`, in the caller's thread
            self.error = self.error or error
            self.stop()

    def _produce(self) -> None:
        with closing(self.producer) as producer:
            producer.run(islice(random_orders(self.seed), self.orders), producer.every)

    def _consume(self) -> None:
        try:
            self.consumer.run(until=self._all_done)
        finally:
            self.finished = True

    def _all_done(self) -> bool:
        made = self.produced
        everything = made.acknowledged + made.failed == self.orders and not made.waiting
        letters = self.consumer.letters
        settled = not letters.under_way and not letters.refused
        return (
            everything
            and settled
            and self.ledger.finished + self.ledger.expired >= made.acknowledged
            and self.consumer.settled
        )

    @property
    def produced(self) -> Produced:
        """What became of the orders given to the producer."""
        return self.producer.produced

    @property
    def trouble(self) -> str | None:
        """Why nothing moves, if something is in the way."""
        return self.consumer.trouble

    def start(self) -> Run:
        """Start both threads and return at once.

        Raises:
            OrderkitError: it was started before; a run has topics of its own, so another one never mixes with it.
        """
        if self.started:
            raise OrderkitError("This run was started before. Make a new Run to run again.")
        self.started = True
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Ask both to end; what is done is committed."""
        self.producer.stop()
        self.consumer.stop()

    @property
    def alive(self) -> bool:
        """Whether the run is still going on."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self, timeout: float) -> None:
        """Wait at most so many seconds for the run to end, and raise nothing."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until the run is over.

        Args:
            timeout: seconds; `None` for as long as it takes.

        Raises:
            OrderkitError: the run failed, or took longer than `timeout`; it is asked to stop then.
            Interrupted: an interrupt came meanwhile; the run is stopped, and what was done is committed.
        """
        try:
            self.join(threading.TIMEOUT_MAX if timeout is None else timeout)
        except KeyboardInterrupt:
            self.stop()
            self.join(PATIENCE)
            raise Interrupted(self.farewell) from None
        if self.error is not None:
            raise self.error
        if self.alive:
            self.stop()
            done = f"{self.ledger.finished} of {self.produced.acknowledged} orders are done with"
            why = self.trouble or "Is the broker still up?"
            raise OrderkitError(f"The run is not over after {timeout:g} s, {done}: {why}")
        return self

    def frame(self) -> pd.DataFrame:
        """Give the ledger as a frame, a row for each delivery attempt, oldest first.

        Columns: `seq` (int, 0 for the first), `at` (float, seconds since 1970), `topic` (category), `partition`,
        `offset`, `attempt` (int; 1 for the first), `order_id` (str, None for poison), `price` (float, NaN for poison),
        `fate` (category: averaged, retry, dead, skipped, undone), `wait` (float, seconds until the next attempt),
        `reason`, `error` (str or None), `running_average` (float, of the orders averaged so far).

        Raises:
            OrderkitError: pandas is not installed.
        """
        return self.ledger.frame()

    @property
    def farewell(self) -> str:
        """What an interrupt leaves behind, and what to do next."""
        done = f"{self.ledger.finished} of {self.produced.acknowledged} orders are done with, and committed"
        return f"{done}. A new run starts afresh."

    def report(self) -> Report:
        """Read commits and dead letters back from the broker, and account for every order."""
        kind = "kafka" if isinstance(self._broker, Connection) else self._broker.kind
        return account(
            self.ledger,
            self.consumer.state(),
            self.topic,
            produced=self.produced.where,
            letters=dead_letter_origins(self.connection, self.dead_letters, self.group),
            seed=self.seed,
            broker=kind,
        )


def _retry_topics(engine: str, topic: str, group: str, policy: RetryPolicy | None) -> list[str]:
    return ENGINES[engine].topics(topic, group, policy or RetryPolicy()) if engine in ENGINES else []
