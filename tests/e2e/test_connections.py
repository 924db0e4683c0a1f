"""Connections that other servers break on: each is answered or ended, and the process with its other clients never notices."""

from __future__ import annotations

import io
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
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


def received(connection: socket.socket) -> bytes:
    """All until the server ends the connection."""
    got = b""
    while chunk := connection.recv(65536):
        got += chunk
    return got


def test_heads_without_end_are_refused_and_the_refusal_arrives(server: Server) -> None:
    line = b"X-Name: " + b"a" * 1000 + b"\r\n"
    with connected(server) as many, connected(server) as url, connected(server) as cookies:
        cookies.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 16_384 + b"\r\n\r\n")
        assert read_until(cookies, b'"live"').startswith(b"HTTP/1.1 200 ")
        many.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + line * 10_000)  # 10 MB, of which most come behind the refusal
        url.sendall(b"GET /" + b"a" * 1_000_000)
        for connection in (many, url):
            answer = received(connection)
            assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
            assert b'"code":"headers_too_large"' in answer
    assert_healthy(server)


def test_slow_heads_and_silent_connections_are_ended(model_folder: Path, tmp_path: Path) -> None:
    flags = ("--models", str(model_folder), "--drain-s", "0", "--body-timeout-s", "0.5")
    with serve(tmp_path / "log", *flags) as server, connected(server) as slow, connected(server) as silent:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        assert received(slow).startswith(b"HTTP/1.1 408 ")
        assert received(silent) == b""
        assert_healthy(server)


def test_answer_that_nobody_reads_ends_and_one_that_is_read_slowly_arrives(model_folder: Path, tmp_path: Path) -> None:
    flags = ("--models", str(model_folder), "--drain-s", "0", "--body-timeout-s", "1")
    stream = io.BytesIO()
    np.save(stream, np.zeros((1, 1, 4096, 4096), np.float32))  # 64 MB, far more than sockets hold
    body = stream.getvalue()
    request = b"POST /v1/pool?op=max&kernel=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
    with serve(tmp_path / "log", *flags) as server, connected(server) as deaf, connected(server) as slow:
        for connection in (deaf, slow):
            connection.sendall(request + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        got, started = 0, time.monotonic()
        while got < len(body):
            piece = slow.recv(2_000_000)  # as much as there is: some 30 pieces, with a pause behind each
            assert piece, f"ended after {got} bytes"
            got += len(piece)
            time.sleep(0.1)
        assert time.monotonic() - started > 2
        assert len(received(deaf)) < len(body) // 2  # what the sockets held
        assert_healthy(server)


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
