"""One page served to a browser on this machine."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pointmix.utils.ranges import Range

HOST = "127.0.0.1"
PORT = Range(0, 2**16 - 1, whole=True)


def serve(path: str | Path, port: int = 0) -> None:
    """Serve an HTML file, and nothing else, on 127.0.0.1 until Ctrl-C; prints its address.

    Args:
        port: 0 for any that is free.

    Raises:
        ValueError: there is no such port.
        OSError: the file cannot be read, or the port is taken.
    """
    with page_server(Path(path).read_bytes(), port) as server:
        print(f"http://{HOST}:{server.server_port}/ shows the page; Ctrl-C ends", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


def page_server(page: bytes, port: int) -> ThreadingHTTPServer:
    """A server of one page, which is not running yet; errors as of `serve`."""
    PORT.check(port=port)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as e:
        raise OSError(f"cannot serve on {HOST}:{port}: {e.strerror}") from e
