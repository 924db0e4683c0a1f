"""The process as its users meet it: start, answers over a socket, attacks on HTTP itself, an orderly end."""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.e2e.server import Server, run_to_its_end, serve
from tests.tiny import TinyClassifier, card


def png(height: int, width: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serve(
        log, "--models", str(model_folder), "--max-body-bytes", "100000", POOLSERVE_BODY_TIMEOUT_S="0.5"
    ) as running:
        yield running


def raw(server: Server, *pieces: bytes) -> bytes:
    """Send bytes as they are, read until the server closes or says no more within 5 s."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
            if b"\r\n\r\n" in received and b'"request_id"' in received:
                break
        return received


def read_until(connection: socket.socket, words: bytes) -> bytes:
    received = b""
    while words not in received:
        chunk = connection.recv(65536)
        assert chunk, received
        received += chunk
    return received


def is_listening(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


def assert_healthy(server: Server) -> None:
    assert httpx2.get(server.url + "/health/ready").status_code == 200
    response = httpx2.post(server.url + "/v1/classify?model=colour", content=png(5, 7))
    assert response.status_code == 200
    assert (response.json()["results"][0]["width"], response.json()["results"][0]["height"]) == (7, 5)


def test_head_has_no_body_on_the_wire(server: Server) -> None:
    """Two on one connection: bytes of the first one's body would be the second one's answer."""
    head = b"HEAD /health/live HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head + b"\r\n" + head + b"Connection: close\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    first, second, rest = received.split(b"\r\n\r\n")
    assert rest == b""
    for answer in (first, second):
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"content-length: 17" in answer.lower()
    assert_healthy(server)


def test_many_clients_get_their_own_answers(server: Server) -> None:
    """24 threads, pictures of their own sizes: nobody gets another's answer."""
    failures: list[str] = []

    def work(number: int) -> None:
        with httpx2.Client() as client:
            for turn in range(10):
                height, width = number + 1, turn + 1
                response = client.post(server.url + "/v1/classify?model=colour&top=1", content=png(height, width))
                result = response.json()["results"][0]
                if (result["height"], result["width"]) != (height, width):
                    failures.append(response.text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert_healthy(server)


HEAD = b"POST /v1/classify?model=colour HTTP/1.1\r\nHost: x\r\n"


def test_length_past_the_limit_is_refused_without_the_body(server: Server) -> None:
    answer = raw(server, HEAD + b"Content-Length: 100001\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()
    assert_healthy(server)


def test_chunked_body_past_the_limit_is_refused_while_it_comes(server: Server) -> None:
    answer = raw(
        server,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n" + b"x" * 0x10000 + b"\r\n",
        b"9000\r\n" + b"x" * 0x9000,
    )
    assert answer.startswith(b"HTTP/1.1 413")
    assert_healthy(server)


def test_slow_body_is_given_up(server: Server) -> None:
    answer = raw(server, HEAD + b"Content-Length: 1000\r\n\r\n", b"a")
    assert answer.startswith(b"HTTP/1.1 408")
    assert_healthy(server)


def test_refused_connection_stays_usable(model_folder: Path, tmp_path: Path) -> None:
    """A 429 comes before the body is sent; the body that follows all the same is skipped, and the next request is answered."""
    picture = png(9, 9)
    with serve(tmp_path / "log", "--models", str(model_folder), "--max-queue", "1", "--drain-s", "0") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as first:
            first.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(picture) + picture[:-1])  # it has the only place
            while httpx2.get(server.url + "/v1/models/colour").json()["waiting"] == 0:
                pass
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as second:
                second.sendall(HEAD + b"Content-Length: 5000000\r\n\r\n")
                refusal = read_until(second, b'"request_id"')
                assert refusal.startswith(b"HTTP/1.1 429")
                assert b"retry-after: 1" in refusal.lower()
                second.sendall(b"x" * 5_000_000 + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_until(second, b'"live"').startswith(b"HTTP/1.1 200")
            first.sendall(picture[-1:])
            assert first.recv(65536).startswith(b"HTTP/1.1 200")
        assert_healthy(server)


@pytest.mark.parametrize("length", [b"-1", b"12abc", b"1e3", b"", b"9" * 30])
def test_length_that_is_none(server: Server, length: bytes) -> None:
    answer = raw(server, HEAD + b"Content-Length: " + length + b"\r\n\r\n")
    assert answer.split()[1] in {b"400", b"413"}
    assert_healthy(server)


def test_client_that_goes_away_mid_body(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nabc")
    assert_healthy(server)


def test_sigterm_ends_in_order(model_folder: Path, tmp_path: Path) -> None:
    """Ready turns 503 while answers go on; what is in flight finishes; the exit status is 0."""
    flags = ("--models", str(model_folder), "--drain-s", "0.5", "--access-log", "true")
    with serve(tmp_path / "log", *flags) as server, httpx2.Client(base_url=server.url) as client:
        picture = png(9, 9)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            slow.sendall(
                HEAD + b"Content-Length: %d\r\n\r\n" % len(picture) + picture[:-1]
            )  # in flight: one byte is missing
            server.process.send_signal(signal.SIGTERM)
            while client.get("/health/ready").status_code == 200:
                pass
            assert client.get("/health/ready").json()["code"] == "not_ready"
            assert client.get("/health/live").status_code == 200
            assert client.post("/v1/classify?model=colour", content=picture).status_code == 200
            while is_listening(server):
                pass
            slow.sendall(picture[-1:])
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.process.wait(10) == 0
    assert "'/v1/classify' 200" in (tmp_path / "log").read_text()


def children(server: Server) -> list[int]:
    """The worker processes; multiprocessing's own resource tracker is none of them."""
    tasks = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in tasks if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_workers_share_the_port_and_end_in_order(model_folder: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "log", "--models", str(model_folder), "--workers", "2", "--drain-s", "0") as server:
        assert len(children(server)) == 2
        for _ in range(10):
            assert_healthy(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_worker_that_ends_by_itself_ends_all(model_folder: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "log", "--models", str(model_folder), "--workers", "2", "--drain-s", "0") as server:
        os.kill(children(server)[0], signal.SIGKILL)
        assert server.process.wait(20) == 1
    assert "ended by itself with status -9; stopping all" in (tmp_path / "log").read_text()


def test_broken_model_stops_the_start_and_is_named(tmp_path: Path) -> None:
    TinyClassifier.random(0).save(tmp_path / "good" / "1", card())
    broken = tmp_path / "bad" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"junk")
    ended = run_to_its_end("--models", str(tmp_path))
    assert ended.returncode == 1
    assert f"{broken.parent}: model.onnx: not a readable ONNX file" in ended.stderr
    assert "skip_broken_models=true" in ended.stderr
    with serve(tmp_path / "log", "--models", str(tmp_path), "--skip-broken-models", "true") as server:
        pages = httpx2.get(server.url + "/v1/models").json()["models"]
        assert [(page["name"], page["state"]) for page in pages] == [("bad", "broken"), ("good", "ready")]
        assert httpx2.post(server.url + "/v1/classify?model=good", content=png(3, 3)).status_code == 200


WRONG_STARTS = {
    "unknown variable": ((), {"POOLSERVE_PROT": "1"}, "POOLSERVE_PROT: unknown setting; the nearest is POOLSERVE_PORT"),
    "value out of bounds": (
        ("--port", "70000"),
        {},
        "port: Input should be less than or equal to 65535; bounds: 0 … 65535",
    ),
    "no models": (("--models", "docs"), {}, "found no model to serve"),
    "cuda without cuda": (("--provider", "cuda"), {}, "provider=cuda was asked for"),
}


@pytest.mark.parametrize(("flags", "variables", "says"), WRONG_STARTS.values(), ids=WRONG_STARTS)
def test_wrong_start_says_so_and_exits_with_1(flags: tuple[str, ...], variables: dict[str, str], says: str) -> None:
    ended = run_to_its_end(*flags, **variables)
    assert ended.returncode == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_port_in_use_is_an_error(server: Server, model_folder: Path) -> None:
    ended = run_to_its_end("--models", str(model_folder), "--port", str(server.port))
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr


def test_print_settings_shows_where_values_come_from() -> None:
    ended = run_to_its_end("--print-settings", "--port", "1", POOLSERVE_MAX_IMAGES="2")
    assert ended.returncode == 0
    assert "| `port` | `1` | flag |" in ended.stdout
    assert "| `max_images` | `2` | environment |" in ended.stdout
    assert "| `host` | `127.0.0.1` | default |" in ended.stdout


def test_nothing_is_written_home_and_nobody_is_told(model_folder: Path, tmp_path: Path) -> None:
    """ONNX Runtime's telemetry keeps a database in the home folder; where there is none, nothing was collected."""
    home = tmp_path / "home"
    home.mkdir()
    flags = ("--models", str(model_folder), "--drain-s", "0")
    with serve(tmp_path / "log", *flags, HOME=str(home), XDG_CACHE_HOME=str(home / "cache")) as server:
        assert_healthy(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    assert list(home.iterdir()) == []


def test_help_teaches() -> None:
    ended = run_to_its_end("--help")
    assert ended.returncode == 0
    for words in ("examples:", "--max-pixels", "POOLSERVE_", "default 8000"):
        assert words in ended.stdout
