"""Connections that other servers break on: each is answered or ended, and the process with its other clients never notices."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Server, serve
from tests.e2e.test_server import HEAD, assert_healthy, is_listening, png, read_until

WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.fixture
def server(model_folder: Path, tmp_path: Path) -> Iterator[Server]:
    with serve(tmp_path / "log", "--models", str(model_folder), "--drain-s", "0") as running:
        yield running


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_request_for_a_websocket_is_answered_and_does_not_disturb_the_end(server: Server) -> None:
    picture = png(9, 9)
    said = b"Content-Length: %d\r\n\r\n" % len(picture)
    with connected(server) as slow, connected(server) as upgrading:
        slow.sendall(HEAD + said + picture[:-1])  # in flight: one byte is missing
        upgrading.sendall(HEAD + WEBSOCKET + said + picture)
        assert read_until(upgrading, b'"results"').startswith(b"HTTP/1.1 200 ")
        assert_healthy(server)
        server.process.send_signal(signal.SIGTERM)
        while is_listening(server):
            pass
        slow.sendall(picture[-1:])
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
    assert server.process.wait(10) == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text()
