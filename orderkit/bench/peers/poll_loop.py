"""confluent-kafka's basic poll loop: one message a call, a synchronous commit every so many."""

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
        message = consumer.poll(timeout=1.0)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        score.begin()
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
