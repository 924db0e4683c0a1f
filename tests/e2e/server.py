"""A real server for tests: `python -m service` as a process of its own, on a free port, waited for until it is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    port: int
    log: Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command(*flags: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "service", *flags]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}  # it sets that itself
    return {**kept, **extra}


def run_to_its_end(*flags: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Start a server that is expected to stop by itself."""
    return subprocess.run(
        command(*flags), cwd=ROOT, env=environment(extra), capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def serve(log: Path, *flags: str, **extra: str) -> Iterator[Server]:
    """Start a server, wait for ready, and end it."""
    port = free_port()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command("--port", str(port), *flags),
            cwd=ROOT,
            env=environment(extra),
            stdout=stream,
            stderr=stream,
            text=True,
        )
    server = Server(process, f"http://127.0.0.1:{port}", port, log)
    try:
        wait_until_ready(server)
        yield server
    finally:
        process.kill()
        process.wait()


def wait_until_ready(server: Server) -> None:
    """The socket is bound only when all is warm, so the first answer must be 200."""
    while server.process.poll() is None:
        try:
            response = httpx2.get(server.url + "/health/ready")
        except httpx2.ConnectError:
            continue
        assert response.status_code == 200
        return
    raise AssertionError(f"the server ended with {server.process.returncode}:\n{server.log.read_text()}")
