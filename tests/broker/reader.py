"""Prints all committed records of topics as JSON lines, from their beginnings to their current ends.

usage: reader.py BOOTSTRAP TOPIC...

A second opinion on what is in the topics: it shares no code with kladder or with its tests.
"""

import base64
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition


def encoded(data):
    return None if data is None else base64.b64encode(data).decode()


def main(bootstrap, topics):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader-without-a-group",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    open_partitions = set()
    for topic in topics:
        metadata = consumer.list_topics(topic, timeout=20).topics[topic]
        if metadata.error is not None:
            sys.exit(f"{topic}: {metadata.error}")
        open_partitions.update((topic, partition) for partition in metadata.partitions)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in open_partitions])
    deadline = time.monotonic() + 60
    while open_partitions:
        if time.monotonic() > deadline:
            sys.exit(f"not read to the end within 60 s: {sorted(open_partitions)}")
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error() is not None:
            # The client reconnects by itself; the deadline bounds it.
            if message.error().code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                continue
            if message.error().code() != KafkaError._PARTITION_EOF:
                sys.exit(str(message.error()))
            open_partitions.discard((message.topic(), message.partition()))
            continue
        record = {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp()[1],
            "key": encoded(message.key()),
            "value": encoded(message.value()),
            "headers": [[name, encoded(value)] for name, value in message.headers() or []],
        }
        print(json.dumps(record))
    consumer.close()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
