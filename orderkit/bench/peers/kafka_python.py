"""kafka-python: iterate over the consumer, a synchronous commit every so many."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer, KafkaProducer

from .job import COMMIT_EVERY, Score, decode, task

CONSUMER = {"session_timeout_ms": 10_000, "fetch_max_wait_ms": 100, "max_poll_records": 1000}
PRODUCER = {"enable_idempotence": True, "linger_ms": 5, "delivery_timeout_ms": 30_100, "request_timeout_ms": 30_000}


def main() -> None:
    """Do the job."""
    job, score, last = task(), Score(), 0
    more: tuple[dict[str, Any], dict[str, Any]] = (CONSUMER, PRODUCER) if job.ours else ({}, {})
    consumer = KafkaConsumer(
        job.topic,
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **more[0],
    )
    producer = KafkaProducer(bootstrap_servers=job.bootstrap, **more[1])
    sent = []
    for message in consumer:
        score.begin()
        if not score.take(decode(message.value)):
            sent.append(producer.send(job.dead_letters, key=message.key, value=message.value))
        if score.done - last >= COMMIT_EVERY or score.done == job.orders:
            producer.flush()
            for one in sent:
                one.get()  # raises what went wrong
            sent.clear()
            consumer.commit()
            last = score.done
        if score.done == job.orders:
            break
    score.report()
    consumer.close()
    producer.close()


if __name__ == "__main__":
    main()
