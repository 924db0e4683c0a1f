"""A real server whose reader is wanted: large JSON by many clients is answered rightly, whatever becomes of that process."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest

from service.cores import available_cores
from tests.e2e.server import Server, serve

CLIENTS, REQUESTS = 6, 8
LIMIT_S = 60


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def readers(server: Server) -> list[int]:
    return [int(pid) for pid in re.findall(r"JSON is read by process (\d+), too", server.log.read_text())]


def ask(server: Server, seed: int) -> None:
    """Send tensors of 0.1 to 4 MB, some of them wrong or with NaN, and look at each answer."""
    rng = np.random.default_rng(seed)
    with httpx2.Client(base_url=server.url, timeout=LIMIT_S) as client:
        for number in range(REQUESTS):
            tensor = rng.normal(size=(rng.integers(1, 64), 3, 32, 32)).astype(np.float32)
            if number % 4 == 3:
                tensor[0, 0, :2, :2] = np.nan
            text = json.dumps({"op": "max", "kernel": 2, "tensor": tensor.tolist()}).replace("NaN", '"NaN"')
            wrong = number % 4 == 2
            if wrong:
                text = text.replace("]]], [[[", "]]], [[", 1) if len(tensor) > 1 else text[:-2]
            response = client.post("/v1/pool", content=text, headers={"Content-Type": "application/json"})
            if wrong:
                assert response.status_code in {400, 422}
                continue
            assert response.status_code == 200, response.text[:300]
            pooled = np.array(json.loads(response.text.replace('"NaN"', "NaN"))["tensor"], np.float32)
            expected = tensor.reshape(len(tensor), 3, 16, 2, 16, 2).max((3, 5))
            assert np.array_equal(pooled, expected, equal_nan=True)


@pytest.mark.skipif(available_cores() < 2, reason="one core: there is no reader")
def test_large_json_is_answered_rightly_whatever_becomes_of_the_reader(tmp_path: Path) -> None:
    with serve(tmp_path / "log") as server:
        with ThreadPoolExecutor(CLIENTS) as clients:
            seeds = np.random.default_rng().integers(2**32, size=2 * CLIENTS).tolist()
            list(clients.map(lambda seed: ask(server, seed), seeds[:CLIENTS]))
            (first,) = readers(server)
            assert is_there(first)
            kill = threading.Timer(0.3, os.kill, (first, signal.SIGKILL))
            kill.start()
            list(clients.map(lambda seed: ask(server, seed), seeds[CLIENTS:]))
            kill.join()
        assert not is_there(first)
        assert f"process {first}, which reads JSON, has ended by itself with status -9" in server.log.read_text()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LIMIT_S) == 0
        limit = time.monotonic() + LIMIT_S
        while any(map(is_there, readers(server))):
            assert time.monotonic() < limit
            time.sleep(0.01)


def test_there_is_none_where_none_is_wanted(tmp_path: Path) -> None:
    with serve(tmp_path / "log", "--json-reader", "false") as server, ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda seed: ask(server, seed), range(3)))
        assert readers(server) == []
