"""confluent-kafka's batch loop: `consume(500)`, then each message by itself."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaException, Producer

from .job import COMMIT_EVERY, CONSUMER, PRODUCER, Score, decode, task


def main() -> None:
    """Do the job."""
    job, score, last = task(), Score(), 0
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            **(CONSUMER if job.ours else {}),
        }
    )
    producer = Producer({"bootstrap.servers": job.bootstrap, **(PRODUCER if job.ours else {})})
    consumer.subscribe([job.topic])
    while score.done < job.orders:
        messages = consumer.consume(500, timeout=0.1)
        if not messages:
            continue
        score.begin()
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            if not score.take(decode(message.value())):
                producer.produce(job.dead_letters, message.value(), message.key(), on_delivery=score.delivered)
        producer.poll(0)
        if score.done - last >= COMMIT_EVERY:
            producer.flush()
            consumer.commit(asynchronous=False)
            last = score.done
    producer.flush()
    if score.done > last:
        consumer.commit(asynchronous=False)
    if score.acknowledged != score.dead:
        raise RuntimeError("dead letters were refused")
    score.report()
    consumer.close()


if __name__ == "__main__":
    main()
