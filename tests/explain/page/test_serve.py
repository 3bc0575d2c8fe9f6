"""The page in a browser, from a server of its own."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer

import pytest

from pointmix.explain.page.serve import page_server, serve


def test_one_page_is_served_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    with page_server("<p>é".encode(), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert server.server_address[0] == "127.0.0.1"
            address = f"http://127.0.0.1:{server.server_port}/"
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert answer.read().decode() == "<p>é" and answer.headers["Content-Type"].startswith("text/html")
            for other in ("secret.txt", "page.html", "../secret.txt", "favicon.ico"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(address + other, timeout=20)
            with pytest.raises(OSError, match=r"cannot serve on 127.0.0.1:\d+: Address already in use"):
                page_server(b"", server.server_port)
        finally:
            server.shutdown()


def test_ctrl_c_ends(tmp_path, monkeypatch, capsys):
    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    (tmp_path / "page.html").write_text("<p>")
    serve(tmp_path / "page.html")
    assert re.fullmatch(r"http://127.0.0.1:\d+/ shows the page; Ctrl-C ends\n", capsys.readouterr().out)


def test_a_port_is_a_number_of_16_bits():
    with pytest.raises(ValueError, match="port must be from 0 to 65535, got 70000"):
        page_server(b"", 70_000)
