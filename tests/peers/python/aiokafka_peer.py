"""aiokafka as a peer: see ../README.md."""

import asyncio

from common import compression, line, options, records

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition


async def send(producer, topic, phase, count):
    headers = [("h", phase.encode())]
    sent = [
        await producer.send(topic, key=key, value=value, headers=headers, partition=0)
        for key, value in records(phase, count)
    ]
    await producer.flush()
    await asyncio.gather(*sent)


async def transact(own, topic, codec, prefix, count):
    producer = AIOKafkaProducer(
        bootstrap_servers=own["bootstrap"],
        compression_type=compression(codec),
        linger_ms=20,
        transactional_id=f"aiokafka-{topic}",
    )
    await producer.start()
    for offset, phase in enumerate("cad", start=1):
        await producer.begin_transaction()
        await send(producer, topic, phase, count)
        await producer.send_offsets_to_transaction({TopicPartition(topic, 0): offset}, f"{prefix}-offsets")
        if phase == "a":
            await producer.abort_transaction()
        else:
            await producer.commit_transaction()
    await producer.stop()


async def write(own):
    prefix, count = own["prefix"], int(own["count"])
    for codec in own["codecs"].split(","):
        topic = f"{prefix}-{codec}"
        plain = AIOKafkaProducer(
            bootstrap_servers=own["bootstrap"],
            compression_type=compression(codec),
            linger_ms=20,
            enable_idempotence=True,
        )
        await plain.start()
        await send(plain, topic, "p", count)
        await transact(own, topic, codec, prefix, count)
        await plain.send_and_wait(topic, value=b"end", partition=0)
        await plain.stop()


async def read(own):
    topics, group = own["topics"].split(","), own.get("group")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=own["bootstrap"],
        group_id=group,
        isolation_level=own["isolation"],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    if group:
        consumer.subscribe(topics)
    else:
        consumer.assign([TopicPartition(topic, 0) for topic in topics])
    await consumer.start()
    unfinished = set(topics)
    while unfinished:
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            for record in batch:
                print(line(record.topic, record.offset, record.key, record.value, record.headers))
                if record.value == b"end":
                    unfinished.discard(record.topic)
    if group:
        await consumer.commit()
    await consumer.stop()


COMMANDS = {"write": write, "read": read}
command, own = options()
asyncio.run(COMMANDS[command](own))
