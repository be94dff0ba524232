"""Who takes part: one line each, with what it is written in and what it needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from orderkit.errors import UsageError


@dataclass(frozen=True)
class Contender:
    """One program that does the job.

    Args:
        name: as `--only` has it.
        title: as the table has it.
        module: the program in `peers/`: a Python module, `kafkajs.js` or `Plain.java`.
        settings: what it is started with: one run of it for each.
        needs: packages of its own environment, pinned; none for what orderkit itself is installed with.
        share: it is given one in so many orders, because it is slow.
    """

    name: str
    title: str
    module: str
    settings: tuple[str, ...] = ("documented", "ours")
    needs: tuple[str, ...] = field(default=())
    share: int = 1

    @property
    def language(self) -> str:
        """What it is written in: `python`, `node` or `java`."""
        return {"js": "node", "java": "java"}.get(self.module.rpartition(".")[2], "python")

    def entries(self) -> list[Entry]:
        """Give its rows in the table."""
        return [Entry(self, settings) for settings in self.settings]


@dataclass(frozen=True)
class Entry:
    """A row of the table: a contender with its settings."""

    contender: Contender
    settings: str

    @property
    def key(self) -> str:
        """A name for this row: `poll-loop/ours`."""
        return f"{self.contender.name}/{self.settings}"

    @property
    def title(self) -> str:
        """The row's title: `poll loop, our settings`."""
        told = {"documented": "as documented", "ours": "our client settings", "exactly-once": "exactly once"}
        return ", ".join(filter(None, (self.contender.title, told.get(self.settings, ""))))


AVRO = "fastavro==1.13.1"
CONTENDERS = (
    Contender("orderkit", "orderkit", "ours", ("default",)),
    Contender("orderkit-full", "orderkit, full ledger", "ours", ("full",)),
    Contender("orderkit-exactly-once", "orderkit", "ours", ("exactly-once",)),
    Contender("poll-loop", "confluent-kafka poll()", "poll_loop"),
    Contender("consume-loop", "confluent-kafka consume(500)", "consume_loop"),
    Contender("quix", "Quix Streams", "quix", needs=("quixstreams[avro]==3.28.1", AVRO)),
    Contender(
        "faststream-batch", "FastStream, batches", "faststream_batch", needs=("faststream[confluent]==0.7.8", AVRO)
    ),
    Contender(
        "faststream-one",
        "FastStream, one by one",
        "faststream_one",
        needs=("faststream[confluent]==0.7.8", AVRO),
        share=100,
    ),
    Contender("aiokafka", "aiokafka", "aio", needs=("aiokafka==0.14.0", AVRO)),
    Contender("kafka-python", "kafka-python", "kafka_python", needs=("kafka-python==3.0.12", AVRO), share=5),
    Contender("kafkajs", "kafkajs + avsc", "kafkajs.js", needs=("kafkajs@2.2.4", "avsc@5.7.9")),
    Contender("java", "Java, kafka-clients + Avro", "Plain.java", needs=("org.apache.avro:avro:1.12.0",)),
)
REFERENCE = CONTENDERS[0]
PRODUCERS = (
    Contender("orderkit", "OrderProducer, counts", "produce_ours", ("default",)),
    Contender("orderkit-places", "OrderProducer, places noted", "produce_ours", ("places",)),
    Contender("plain", "fastavro + produce(on_delivery=...)", "produce_plain"),
)


def choose(names: tuple[str, ...] | list[str], among: tuple[Contender, ...] = CONTENDERS) -> list[Contender]:
    """Give the contenders of these names, the reference first; all for no name.

    Raises:
        UsageError: a name that nobody has.
    """
    known = [contender.name for contender in among]
    for name in names:
        if name not in known:
            raise UsageError(f"No contender is called {name!r}. Choose from: {', '.join(known)}.")
    return [one for one in among if not names or one is among[0] or one.name in names]
