"""A handler that dies on a record whose value contains "poison": PORT LOG. Each request is a line of the log."""

import http.server
import os
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        line = f"{self.headers['Kladder-Offset']} {self.headers['Kladder-Attempt']}\n"
        os.write(LOG, line.encode())
        time.sleep(0.05)
        if b"poison" in body:
            os._exit(1)
        time.sleep(0.05)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


LOG = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
