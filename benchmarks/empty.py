"""The least that a request can cost here: an ASGI route that reads the body and answers, under the service's own server.

`python -m benchmarks.empty PORT PROCESSES` runs it in several processes that share a port the way the service's workers do.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn

_ANSWER = b'{"model": "digits", "version": "1", "results": []}' + b" " * 400
"""As many bytes as the answer of /v1/classify has."""


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer 200 to anything."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


def serve(port: int) -> None:
    """Run one process."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, server_header=False)).run([listener])


def main() -> None:
    """Run the command; SIGTERM ends it."""
    port, count = map(int, sys.argv[1:])
    processes = [multiprocessing.Process(target=serve, args=(port,)) for _ in range(count)]
    for process in processes:
        process.start()

    def stop(signum: int, frame: FrameType | None) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
