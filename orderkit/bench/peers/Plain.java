// Plain Java: KafkaConsumer, Apache Avro's GenericDatumReader, KafkaProducer, a synchronous commit every so many.

import java.time.Duration;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import java.util.List;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Plain {
    private static final int MAX_ATTEMPTS = 3;
    private static final int COMMIT_EVERY = 10_000;
    private static final Schema SCHEMA = new Schema.Parser().parse(
        "{\"type\":\"record\",\"name\":\"Order\",\"fields\":[{\"name\":\"orderId\",\"type\":\"string\"},"
            + "{\"name\":\"product\",\"type\":\"string\"},{\"name\":\"price\",\"type\":\"float\"}]}");

    /** Fails what has to fail: every twentieth order always, every other fifth at the first attempt. */
    private static void handle(GenericRecord order, int attempt) {
        int number = Integer.parseInt(order.get("orderId").toString());
        if (number % 20 == 0 || (number % 10 == 5 && attempt == 1)) {
            throw new IllegalStateException("the service is not there");
        }
    }

    private static boolean succeeds(GenericRecord order) {
        for (int attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
            try {
                handle(order, attempt);
                return true;
            } catch (IllegalStateException error) {
                // the next attempt
            }
        }
        return false;
    }

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1];
        String deadLetters = arguments[2];
        int count = Integer.parseInt(arguments[4]);
        boolean ours = arguments[5].equals("ours");
        Properties consuming = new Properties();
        consuming.put("bootstrap.servers", arguments[0]);
        consuming.put("group.id", arguments[3]);
        consuming.put("enable.auto.commit", "false");
        consuming.put("auto.offset.reset", "earliest");
        Properties producing = new Properties();
        producing.put("bootstrap.servers", arguments[0]);
        if (ours) {
            consuming.put("session.timeout.ms", "10000");
            consuming.put("fetch.max.wait.ms", "100");
            consuming.put("max.poll.records", "1000");
            producing.put("linger.ms", "5");
            producing.put("delivery.timeout.ms", "30100");
        }
        AtomicLong acknowledged = new AtomicLong();
        long dead = 0;
        long good = 0;
        long last = 0;
        long start = 0;
        double total = 0;
        GenericDatumReader<GenericRecord> reader = new GenericDatumReader<>(SCHEMA);
        BinaryDecoder decoder = null;
        try (KafkaConsumer<byte[], byte[]> consumer =
                    new KafkaConsumer<>(consuming, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                KafkaProducer<byte[], byte[]> producer =
                    new KafkaProducer<>(producing, new ByteArraySerializer(), new ByteArraySerializer())) {
            consumer.subscribe(List.of(topic));
            while (good + dead < count) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
                if (records.isEmpty()) {
                    continue;
                }
                if (start == 0) {
                    start = System.nanoTime();
                }
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    decoder = DecoderFactory.get().binaryDecoder(record.value(), decoder);
                    GenericRecord order = reader.read(null, decoder);
                    if (succeeds(order)) {
                        total += (Float) order.get("price");
                        good++;
                    } else {
                        dead++;
                        producer.send(
                            new ProducerRecord<>(deadLetters, record.key(), record.value()),
                            (place, error) -> {
                                if (error == null) {
                                    acknowledged.incrementAndGet();
                                }
                            });
                    }
                }
                if (good + dead - last >= COMMIT_EVERY) {
                    producer.flush();
                    consumer.commitSync();
                    last = good + dead;
                }
            }
            producer.flush();
            consumer.commitSync();
            double seconds = (System.nanoTime() - start) / 1e9;
            if (acknowledged.get() != dead) {
                throw new IllegalStateException("dead letters were refused");
            }
            System.out.printf(Locale.ROOT, "{\"count\": %d, \"total\": %.10f, \"dead\": %d, \"seconds\": %.6f}%n",
                good, total, dead, seconds);
        }
    }
}
