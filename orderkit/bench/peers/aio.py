"""aiokafka: `getmany`, a batch of a partition at a time, and a commit after each."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from .job import Score, decode, task

CONSUMER = {"session_timeout_ms": 10_000, "fetch_max_wait_ms": 100}
PRODUCER = {"enable_idempotence": True, "linger_ms": 5, "request_timeout_ms": 30_000}


async def main() -> None:
    """Do the job."""
    job, score = task(), Score()
    more: tuple[dict[str, Any], dict[str, Any]] = (CONSUMER, PRODUCER) if job.ours else ({}, {})
    consumer = AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **more[0],
    )
    producer = AIOKafkaProducer(bootstrap_servers=job.bootstrap, **more[1])
    await consumer.start()
    await producer.start()
    while score.done < job.orders:
        batches = await consumer.getmany(timeout_ms=1000)
        for partition, messages in batches.items():
            score.begin()
            dead = [message for message in messages if not score.take(decode(message.value))]
            sent = [await producer.send(job.dead_letters, message.value, message.key) for message in dead]
            await asyncio.gather(*sent)
            await consumer.commit({partition: messages[-1].offset + 1})
    score.report()
    await consumer.stop()
    await producer.stop()


if __name__ == "__main__":
    asyncio.run(main())
