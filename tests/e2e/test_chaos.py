"""Thirty percent of the requests are good, the rest is what the world sends; clients vanish at any moment. The service stays well.

After mosec's bad_req.py.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np

from tests.e2e.server import Server, serve
from tests.pictures import encode, png_header, textured
from tests.service.api.colour import GOOD, PLAIN, assert_result

REQUESTS, CLIENTS = 1500, 12


PHOTO = encode(textured(50, 70), "JPEG")
TARGET = "/v1/classify?model=colour"

Worded = tuple[str, dict[str, str], bytes, set[int]]
"""Target, headers, body, and the statuses that are right for it."""


def base64_json(rng: np.random.Generator) -> Worded:
    images = [base64.b64encode(GOOD).decode()] * int(rng.integers(1, 4))
    document = json.dumps({"model": "colour", "images": images}).encode()
    return "/v1/classify", {"Content-Type": "application/json"}, document, {200}


BAD: list[Callable[[np.random.Generator], Worded]] = [
    lambda rng: (TARGET, {}, b"", {400}),
    lambda rng: (TARGET, {}, rng.bytes(int(rng.integers(1, 3000))), {415, 422}),
    lambda rng: (TARGET, {}, PHOTO[: int(rng.integers(4, len(PHOTO) - 2))], {415, 422}),
    lambda rng: (TARGET, {}, png_header(60_000, 60_000), {413}),
    lambda rng: ("/v1/classify?model=" + "x" * int(rng.integers(1, 200)), {}, GOOD, {404}),
    lambda rng: (f"{TARGET}&top={rng.integers(-9, 1)}", {}, GOOD, {422}),
    lambda rng: ("/" + "".join(chr(c) for c in rng.integers(97, 123, 8)), {}, GOOD, {404}),
    lambda rng: (TARGET, {"Content-Type": "application/json"}, b"\x00" + rng.bytes(40), {400}),
    lambda rng: (TARGET, {"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n" + rng.bytes(30), {400, 422}),
    lambda rng: (TARGET, {"X-Request-Timeout": "0.000001"}, GOOD, {429, 504}),
    lambda rng: (TARGET, {"Content-Encoding": "gzip"}, GOOD, {415}),
]
FINE: list[Callable[[np.random.Generator], Worded]] = [
    lambda rng: (TARGET, {}, GOOD, {200}),
    lambda rng: (TARGET, {}, PHOTO, {200}),
    base64_json,
]


def request(rng: np.random.Generator) -> tuple[bytes, set[int]]:
    """Word one request, and which statuses are right for it."""
    kinds = FINE if rng.random() < 0.3 else BAD
    target, headers, body, right = kinds[int(rng.integers(len(kinds)))](rng)
    lines = [
        f"POST {target} HTTP/1.1",
        "Host: x",
        f"Content-Length: {len(body)}",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body, right


def client(server: Server, seed: list[int]) -> Counter[str]:
    """Send requests, some of them cut off or not waited for; count what is wrong."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    for _ in range(REQUESTS // CLIENTS):
        message, right = request(rng)
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            if rng.random() < 0.2:
                connection.sendall(message[: int(rng.integers(1, len(message)))])
                counts["left"] += 1
                continue
            connection.sendall(message)
            if rng.random() < 0.2:
                counts["left"] += 1
                continue
            status = int(connection.recv(65536).split()[1])
            counts["right" if status in right else f"{status} instead of {right}"] += 1
    return counts


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_service_survives_the_world(model_folder: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", secrets.randbits(32)))
    print(f"SEED={seed}")
    with (
        serve(tmp_path / "log", "--models", str(model_folder), "--drain-s", "0") as server,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        counts = sum(pool.map(lambda n: client(server, [seed, n]), range(CLIENTS)), Counter())
        assert set(counts) == {"right", "left"}, counts
        page = httpx2.get(server.url + "/v1/models/colour").json()
        while page["waiting"]:  # what vanished clients had sent is still being dropped
            page = httpx2.get(server.url + "/v1/models/colour").json()
        response = httpx2.post(server.url + "/v1/classify?model=colour", content=GOOD)
        assert_result(response.json()["results"][0], PLAIN)
        assert resident_bytes(server.process.pid) < 2**29
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        log = (tmp_path / "log").read_text()
        assert "Traceback" not in log, log[-3000:]
