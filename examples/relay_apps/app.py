"""An application that consumes orders itself and passes failed ones to a relay ladder.

usage: app.py BROKERS LADDER GROUP SOURCE          (pip install confluent-kafka)

An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails N times.
"""

import json
import signal
import sys

from confluent_kafka import Consumer, Producer


class OrderError(Exception):
    """Why an order cannot be handled now, or ever."""


def handle(value, attempt):
    if value is None:
        return
    try:
        order = json.loads(value)
        order["order"]
    except (ValueError, TypeError, KeyError) as error:
        raise OrderError("InvalidOrder", "no order") from error
    if attempt <= order.get("fail", 0):
        raise OrderError("OutOfStock", "not in stock")


def last(headers, name):
    values = [value for key, value in headers if key == name and value is not None]
    return values[-1].decode(errors="replace") if values else None


def failed(message, ladder, redelivered, error):
    """The headers for the inbox: those of the record, its origin, and the failure."""
    headers = message.headers() or []
    told = {"kladder-error-class": error.args[0], "kladder-error-message": error.args[1]}
    if not redelivered:
        # Services copy headers: kladder's headers on a source record belong to another record.
        headers = [(name, value) for name, value in headers if not name.startswith("kladder-")]
        told |= {
            "kladder-ladder": ladder,
            "kladder-origin-topic": message.topic(),
            "kladder-origin-partition": str(message.partition()),
            "kladder-origin-offset": str(message.offset()),
            "kladder-origin-timestamp": str(message.timestamp()[1]),
        }
    return [(name, value) for name, value in headers if name not in told] + [(name, value.encode()) for name, value in told.items()]


def main(brokers, ladder, group, source):
    running = True

    def end(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, end)
    common = {"bootstrap.servers": brokers}
    # read_committed: records that the ladder has not committed are not redelivered yet. Offsets are committed explicitly, below.
    reading = {"group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer(common | reading)
    producer = Producer(common | {"enable.idempotence": True})
    consumer.subscribe([source, f"{ladder}.redeliver"])
    while running:
        messages = [m for m in consumer.consume(num_messages=100, timeout=0.2) if m.error() is None]
        for message in messages:
            headers = message.headers() or []
            redelivered = message.topic() != source
            attempt = int(last(headers, "kladder-attempts") or 0) + 1 if redelivered else 1
            try:
                handle(message.value(), attempt)
                print(f"order {message.value()} attempt={attempt} done", flush=True)
            except OrderError as error:
                print(f"order {message.value()} attempt={attempt} failed: {error.args[0]}", flush=True)
                inbox = f"{ladder}.inbox"
                producer.produce(inbox, message.value(), message.key(), headers=failed(message, ladder, redelivered, error))
        # The offset is committed only after the inbox has acknowledged the record.
        if producer.flush(30) > 0:
            sys.exit("the inbox did not confirm")
        if messages:
            consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
