"""kafka-python as a peer: see ../README.md."""

from common import compression, line, options, records

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata


def send(producer, topic, phase, count):
    headers = [("h", phase.encode())]
    sent = [
        producer.send(topic, key=key, value=value, headers=headers, partition=0)
        for key, value in records(phase, count)
    ]
    producer.flush()
    for future in sent:
        future.get(timeout=30)


def transact(own, topic, codec, prefix, count):
    producer = KafkaProducer(
        bootstrap_servers=own["bootstrap"],
        compression_type=compression(codec),
        linger_ms=20,
        transactional_id=f"kafka-python-{topic}",
    )
    producer.init_transactions()
    for offset, phase in enumerate("cad", start=1):
        producer.begin_transaction()
        send(producer, topic, phase, count)
        offsets = {TopicPartition(topic, 0): OffsetAndMetadata(offset, "", -1)}
        producer.send_offsets_to_transaction(offsets, f"{prefix}-offsets")
        if phase == "a":
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()


def write(own):
    prefix, count = own["prefix"], int(own["count"])
    for codec in own["codecs"].split(","):
        topic = f"{prefix}-{codec}"
        plain = KafkaProducer(
            bootstrap_servers=own["bootstrap"], compression_type=compression(codec), linger_ms=20
        )
        send(plain, topic, "p", count)
        transact(own, topic, codec, prefix, count)
        plain.send(topic, value=b"end", partition=0).get(timeout=30)
        plain.close()


def read(own):
    topics, group = own["topics"].split(","), own.get("group")
    consumer = KafkaConsumer(
        bootstrap_servers=own["bootstrap"],
        group_id=group,
        isolation_level=own["isolation"],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    if group:
        consumer.subscribe(topics)
    else:
        partitions = [TopicPartition(topic, 0) for topic in topics]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
    unfinished = set(topics)
    while unfinished:
        # Long: if it ends while kafka-python 3.0.12 joins a group, it forgets its assignment for good.
        for batch in consumer.poll(timeout_ms=10_000).values():
            for record in batch:
                print(line(record.topic, record.offset, record.key, record.value, record.headers))
                if record.value == b"end":
                    unfinished.discard(record.topic)
    if group:
        consumer.commit()
    consumer.close()


COMMANDS = {"write": write, "read": read}
command, own = options()
COMMANDS[command](own)
