"""A web server that greets."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from common import greeting


class Greeter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(greeting("api").encode())


if "--once" in sys.argv:
    print(greeting("api"))
else:
    HTTPServer(("", 8080), Greeter).serve_forever()
