"""Quix Streams: a streaming data frame with an Avro deserializer; what is left after the attempts goes to a topic."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from typing import Any

from quixstreams import Application
from quixstreams.models.serializers.avro import AvroDeserializer, AvroSerializer

from .job import CONSUMER, PRODUCER, SCHEMA, Score, task


def main() -> None:
    """Do the job. Its checkpoints flush the producer before they commit."""
    job, score = task(), Score()
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        consumer_extra_config=CONSUMER if job.ours else None,
        producer_extra_config=PRODUCER if job.ours else None,
        loglevel="WARNING",
    )
    orders = app.topic(job.topic, value_deserializer=AvroDeserializer(schema=SCHEMA))
    letters = app.topic(job.dead_letters, value_serializer=AvroSerializer(schema=SCHEMA))

    def dies(order: Any) -> bool:
        score.begin()
        good = score.take(order)
        if score.done == job.orders:
            app.stop()
        return not good

    app.dataframe(orders).filter(dies).to_topic(letters)
    app.run()
    score.report()


if __name__ == "__main__":
    main()
