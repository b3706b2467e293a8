"""A local HTTP service whose answers a test scripts, for rewards behind HTTP."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Drop:
    """The connection breaks: before an answer, or in the middle of one."""

    def __init__(self, after=b""):
        self.after = after


class Wait:
    """Silence for some seconds."""

    def __init__(self, seconds):
        self.seconds = seconds


class Service:
    """What a test asks of a running service: `url`, and the requests that it got."""

    def __init__(self, answers, get=None):
        self.requests = []
        self.headers = []
        self.lock = threading.Lock()
        self._answers = answers
        self._get = {} if get is None else get

    def answer(self, path, body, headers):
        with self.lock:
            if body is None:
                return self._get.get(path, (404, {}))
            self.requests.append(body)
            self.headers.append(dict(headers))
            place = min(len(self.requests), len(self._answers)) - 1 if isinstance(self._answers, list) else None
        return self._answers(body) if place is None else self._answers[place]


@contextmanager
def serving(answers, get=None):
    """Run a service.

    Args:
        answers: what POST requests get, in order, the last one for all that follow; or a function of the request. An
            answer is `(status, object or bytes)`, `(status, object, headers)`, an object for status 200, `Drop` or
            `Wait`.
        get: what GET requests get, by path.
    """
    service = Service(answers, get)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(service.answer(self.path, None, self.headers))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(service.answer(self.path, body, self.headers))

        def _send(self, answer):
            if isinstance(answer, Wait):
                time.sleep(answer.seconds)
                return
            if isinstance(answer, Drop):
                self.wfile.write(answer.after)
                return
            status, content, headers = (*answer, {})[:3] if isinstance(answer, tuple) else (200, answer, {})
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
