"""Servers as their users run them: each in a process of its own, on a free port of 127.0.0.1, stopped in order at the end."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.load import HOST

_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 60.0


@dataclass(frozen=True)
class Running:
    """A server that is ready.

    Attributes:
        port: on 127.0.0.1.
        ready_s: seconds from starting the process to `/health/ready` = 200.
        pid: of the process.
    """

    port: int
    ready_s: float
    pid: int


@contextmanager
def service(models: Path, *flags: str) -> Iterator[Running]:
    """Run `python -m service` on a folder of models.

    Raises:
        RuntimeError: it ended by itself or was not ready in time; has its last words.
    """
    port = _free_port()
    flags = ("--models", str(models), "--port", str(port), "--drain-s", "0", *flags)
    with _process(["-m", "service", *flags], port) as running:
        yield running


@contextmanager
def empty(processes: int = 1) -> Iterator[Running]:
    """Run the empty route (empty.py) in so many processes on one port."""
    port = _free_port()
    with _process(["-m", "benchmarks.empty", str(port), str(processes)], port) as running:
        wait_for_listeners(port, processes)
        yield running


def wait_for_listeners(port: int, processes: int) -> None:
    """Wait until so many processes listen on a port: the first of them to be ready answers for all.

    Raises:
        RuntimeError: they do not.
    """
    ends = time.monotonic() + _START_LIMIT_S
    row = re.compile(rf"^ *\d+: [0-9A-F]+:{port:04X} \S+ 0A ", re.MULTILINE)
    while len(row.findall(Path("/proc/net/tcp").read_text())) < processes:
        if time.monotonic() > ends:
            raise RuntimeError(f"expected {processes} listeners on port {port}")
        time.sleep(0.005)


@contextmanager
def asgi(app: str) -> Iterator[Running]:
    """Run an application (`module:name`) under uvicorn, with the same loop and parser as the service's."""
    port = _free_port()
    with _process(["-m", "uvicorn", app, "--port", str(port), "--log-level", "error"], port) as running:
        yield running


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def _process(arguments: Sequence[str], port: int) -> Iterator[Running]:
    with tempfile.TemporaryFile("w+") as words:
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, *arguments], stdout=words, stderr=subprocess.STDOUT)
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() - started > _START_LIMIT_S:
                    raise RuntimeError(f"the server did not start:\n{_last(words)}")
                time.sleep(0.005)
            yield Running(port, time.monotonic() - started, process.pid)
            if process.poll() is not None:
                raise RuntimeError(f"the server ended by itself, status {process.returncode}:\n{_last(words)}")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last(words: IO[str]) -> str:
    words.seek(0)
    return words.read()[-4000:]
