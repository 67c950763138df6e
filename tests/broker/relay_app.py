"""An application that consumes Kafka itself and relays failed records, as written with confluent-kafka.

usage: relay_app.py SETTINGS   (a JSON object: brokers, group, topics, inbox, ladder, fail, copy)

It consumes `topics` (the source and, unless records are redelivered there, the ladder's redeliver topic), read_committed. A record whose
header x-id is r-N fails `fail[N % len(fail)]` times (-1: always); it is copied to `inbox`, and only then its offset is
committed. `copy` is the way of copying:

  introduce  all headers; a first failure adds its origin and drops kladder's headers from the source
  append     all headers unchanged, followed by the error's
  nothing    key and value only: what an application must not do

Each delivery is printed to stdout as one JSON object per line. SIGTERM stops it.
"""

import base64
import json
import signal
import sys

from confluent_kafka import Consumer, Producer

ended = False


def end(*_):
    global ended
    ended = True


def text(headers, name):
    values = [value for key, value in headers if key == name and value is not None]
    return values[-1].decode(errors="replace") if values else None


def encoded(value):
    return None if value is None else base64.b64encode(value).decode()


def relayed(settings, message, headers, redelivered):
    """The headers of the record for the inbox."""
    error = [("kladder-error-class", b"HTTP 503"), ("kladder-error-status", b"503"), ("kladder-error-message", b"the plan says no")]
    if settings["copy"] == "nothing":
        return []
    if settings["copy"] == "append":
        return headers + error
    names = {name for name, _ in error}
    if redelivered:
        return [h for h in headers if h[0] not in names] + error
    origin = [
        ("kladder-ladder", settings["ladder"].encode()),
        ("kladder-origin-topic", message.topic().encode()),
        ("kladder-origin-partition", str(message.partition()).encode()),
        ("kladder-origin-offset", str(message.offset()).encode()),
        ("kladder-origin-timestamp", str(message.timestamp()[1]).encode()),
    ]
    return [h for h in headers if not h[0].startswith("kladder-")] + origin + error


def main(settings):
    signal.signal(signal.SIGTERM, end)
    common = {"bootstrap.servers": settings["brokers"]}
    consumer = Consumer(
        common
        | {
            "group.id": settings["group"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "session.timeout.ms": 10000,
        }
    )
    producer = Producer(common | {"enable.idempotence": True, "linger.ms": 1})
    consumer.subscribe(settings["topics"])
    while not ended:
        batch = consumer.consume(num_messages=100, timeout=0.2)
        if not batch:
            continue
        for message in batch:
            if message.error() is not None:
                continue
            headers = message.headers() or []
            ours = text(headers, "kladder-ladder") == settings["ladder"]
            at_source = message.topic() in settings["sources"]
            redelivered = ours and (not at_source or len(settings["topics"]) == 1)
            attempt = int(text(headers, "kladder-attempts") or 0) + 1 if redelivered else 1
            number = int((text(headers, "x-id") or "r-0")[2:])
            failures = settings["fail"][number % len(settings["fail"])]
            fails = failures < 0 or attempt <= failures
            if fails:
                producer.produce(
                    settings["inbox"],
                    key=message.key(),
                    value=message.value(),
                    headers=relayed(settings, message, headers, redelivered),
                )
            told = {
                "origin-topic": text(headers, "kladder-origin-topic") if redelivered else message.topic(),
                "origin-partition": text(headers, "kladder-origin-partition") if redelivered else str(message.partition()),
                "origin-offset": text(headers, "kladder-origin-offset") if redelivered else str(message.offset()),
                "attempt": attempt,
                "value": encoded(message.value()),
            }
            print(json.dumps(told), flush=True)
        # The offset is committed only after the inbox has acknowledged the record.
        if producer.flush(30) > 0:
            sys.exit("the inbox did not confirm")
        consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(json.loads(sys.argv[1]))
