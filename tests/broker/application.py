"""An application that exits at once on SIGTERM: PORT LOG PARTITIONS. Each delivery is a line of the log, written when it begins.
Record N, counted over the partitions in turn, fails FAIL[N % 6] times; -1 means always."""

import base64
import http.server
import json
import os
import sys
import time

FAIL = [0, 1, 0, 2, -1, 1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        partition, offset = int(self.headers["Kladder-Partition"]), int(self.headers["Kladder-Offset"])
        attempt = int(self.headers["Kladder-Attempt"])
        told = {
            "topic": self.headers["Kladder-Topic"],
            "partition": partition,
            "offset": offset,
            "attempt": attempt,
            "key": self.headers["Idempotency-Key"],
            "body": base64.b64encode(body).decode(),
        }
        os.write(LOG, (json.dumps(told) + "\n").encode())
        time.sleep(0.05)
        fails = FAIL[(offset * PARTITIONS + partition) % len(FAIL)]
        answer = b"the plan says no" if fails == -1 or attempt <= fails else b""
        self.send_response(503 if answer else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


LOG = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
PARTITIONS = int(sys.argv[3])
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
