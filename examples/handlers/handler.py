"""A handler of orders: python3 handler.py PORT

Standard library only. An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails N times, and one
with "wait": S asks for S seconds of patience the first time. Takes batches of CloudEvents, too.
"""

import base64
import http.server
import json
import signal
import sys
import threading

done = set()  # A real handler stores this together with its orders, in one transaction.
lock = threading.Lock()
open_calls = 0


def key_of(headers):
    """The key as bytes; None if there is none or it was too long for a header."""
    key = headers.get("Kladder-Key")
    if key is None:
        return None
    return base64.b64decode(key) if headers.get("Kladder-Key-Encoding") == "base64" else key.encode("latin-1")


def handle(key, value, attempt):
    """The verdict on an order, with headers and a text that say more."""
    if value is None:
        return "done", {}, "cancelled"
    try:
        order = json.loads(value)
        order["order"]
    except (ValueError, TypeError, KeyError):
        return "reject", {"Kladder-Error-Class": "InvalidOrder"}, "no order"
    if attempt == 1 and "wait" in order:
        return "retry", {"Kladder-Error-Class": "Busy", "Retry-After": str(order["wait"])}, "come back later"
    if attempt <= order.get("fail", 0):
        return "retry", {"Kladder-Error-Class": "OutOfStock"}, "not in stock"
    return "done", {}, "shipped"


def deliver(idempotency_key, key, value, attempt):
    """The verdict on one delivery, at most once done."""
    with lock:
        seen = idempotency_key in done
    verdict, more, text = ("done", {}, "done before") if seen else handle(key, value, attempt)
    if verdict == "done":
        with lock:
            done.add(idempotency_key)
    shown = "none" if key is None else base64.b64encode(key).decode()
    size = "null" if value is None else len(value)
    with lock:  # Lines of different threads must not mix.
        print(f"key={shown} value={size} attempt={attempt} {verdict}", flush=True)
    return verdict, more, text


def deliver_event(event):
    """The same for an event of a batch; what failed as the answer names it, or None."""
    key = event["partitionkey"].encode() if "partitionkey" in event else None
    if "kladderkeybase64" in event:
        key = base64.b64decode(event["kladderkeybase64"])
    value = None
    if "data" in event:
        value = json.dumps(event["data"], separators=(",", ":")).encode()
    elif "data_base64" in event:
        value = base64.b64decode(event["data_base64"])
    verdict, more, text = deliver(event["id"], key, value, event["kladderattempt"])
    if verdict == "done":
        return None
    failure = {"id": event["id"], "verdict": verdict, "error_class": more["Kladder-Error-Class"], "error_message": text}
    return failure | ({"retry_after": more["Retry-After"]} if "Retry-After" in more else {})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Connections stay open.
    disable_nagle_algorithm = True

    def do_POST(self):
        global open_calls
        with lock:
            open_calls += 1
        try:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Type"].startswith("application/cloudevents-batch+json"):
                failures = [failure for failure in map(deliver_event, json.loads(body)) if failure]
                self.answer(200, {"Content-Type": "application/json"}, json.dumps({"failures": failures}).encode())
                return
            value = None if self.headers.get("Kladder-Value") == "null" else body
            attempt = int(self.headers["Kladder-Attempt"])
            verdict, more, text = deliver(self.headers["Idempotency-Key"], key_of(self.headers), value, attempt)
            self.answer({"done": 200, "retry": 503, "reject": 422}[verdict], {"Kladder-Verdict": verdict} | more, text.encode())
        finally:
            with lock:
                open_calls -= 1

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # The default of 5 refuses connections when 64 deliveries begin at once.


def main(port):
    server = Server(("127.0.0.1", port), Handler)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ended.wait()
    server.shutdown()
    # Requests in flight are answered first.
    while open_calls:
        threading.Event().wait(0.01)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(int(sys.argv[1]))
