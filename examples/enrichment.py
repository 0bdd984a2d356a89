"""The service of the example `enrichment`: rum is not delivered to Oslo, and nothing is delivered to nowhere."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

told = set()


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        is_refused = self.path == "/Oslo/rum" or self.path.startswith("/nowhere/")
        self.answer(404 if is_refused else 200)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key")
        if key not in told:
            told.add(key)
            print("mail:", body.decode(), flush=True)
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", 8000), Service).serve_forever()
