"""A worker in Python with nothing but its standard library:

    python3 examples/forward/worker.py 3000
    bullwark worker --queue emails --forward http://127.0.0.1:3000

Set BULLWARK_FORWARD_SECRET for both, and deliveries are signed. A secret that begins with `whsec_`
is base64 behind that, as Standard Webhooks writes secrets.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = os.environ.get("BULLWARK_FORWARD_SECRET", "")
SECRET = base64.b64decode(TEXT[len("whsec_"):]) if TEXT.startswith("whsec_") else TEXT.encode()


class Unrecoverable(Exception):
    """No retry can help."""


class RetryIn(Exception):
    """Try again after so many milliseconds."""

    def __init__(self, message, milliseconds):
        super().__init__(message)
        self.milliseconds = milliseconds


def welcome(job):
    return {"sent": job["data"]["to"]}


def flaky(job):
    if job["attemptsMade"] == 0:
        raise RetryIn("try again", 100)
    return "at the second attempt"


def hopeless(job):
    raise Unrecoverable("no retry can help")


# One function per job name. What it returns is the job's result; what it raises fails the attempt.
HANDLERS = {"welcome": welcome, "flaky": flaky, "hopeless": hopeless}


def is_genuine(headers, body):
    if not TEXT:
        return True
    ident, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "0")
    if abs(time.time() - int(timestamp)) > 300:
        return False
    digest = hmac.new(SECRET, f"{ident}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    return hmac.compare_digest(expected, headers.get("webhook-signature", ""))


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not is_genuine(self.headers, body):
            return self.answer(401, {"error": {"message": "bad signature"}})
        job = json.loads(body)["job"]
        try:
            self.answer(200, {"returnvalue": HANDLERS[job["name"]](job)})
        except Exception as error:
            described = {"message": str(error), "stack": traceback.format_exc()}
            if isinstance(error, Unrecoverable):
                described["name"] = "UnrecoverableError"
            if isinstance(error, RetryIn):
                described["retryInMs"] = error.milliseconds
            self.answer(500, {"error": described})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()
