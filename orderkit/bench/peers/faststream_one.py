"""FastStream on confluent-kafka, one order at a time, as its documentation starts: an acknowledgement for each."""
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
        return decode(message.body)

    @broker.subscriber(
        job.topic,
        group_id=job.group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
        decoder=decoder,
    )
    async def handle(order: Any, message: KafkaMessage) -> None:
        score.begin()
        if not score.take(order):
            await broker.publish(message.body, topic=job.dead_letters, key=message.raw_message.key())
        await message.ack()
        if score.done == job.orders:
            score.report()
            done.set()

    async with broker:
        await broker.start()
        await done.wait()


if __name__ == "__main__":
    asyncio.run(main())
