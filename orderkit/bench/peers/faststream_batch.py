"""FastStream on confluent-kafka, a batch at a time: decoder, dead letters published, then an acknowledgement."""
# mypy: disable-error-code="import-not-found,untyped-decorator"

from __future__ import annotations

import asyncio
from typing import Any

from faststream import AckPolicy
from faststream.confluent import KafkaBroker
from faststream.confluent.annotations import KafkaMessage

from .job import Score, decode, task
from .streams import settings


async def main() -> None:
    """Do the job."""
    job, score, done = task(), Score(), asyncio.Event()
    broker = KafkaBroker(job.bootstrap, logger=None, **settings(job))

    async def decoder(message: KafkaMessage) -> Any:
        return [decode(body) for body in message.body]

    @broker.subscriber(
        job.topic,
        group_id=job.group,
        auto_offset_reset="earliest",
        batch=True,
        max_records=500,
        ack_policy=AckPolicy.MANUAL,
        decoder=decoder,
    )
    async def handle(orders: list[Any], message: KafkaMessage) -> None:
        score.begin()
        dead = [raw for order, raw in zip(orders, message.raw_message, strict=True) if not score.take(order)]
        if dead:
            await broker.publish_batch(*(raw.value() for raw in dead), topic=job.dead_letters)
        await message.ack()
        if score.done == job.orders:
            score.report()
            done.set()

    async with broker:
        await broker.start()
        await done.wait()


if __name__ == "__main__":
    asyncio.run(main())
