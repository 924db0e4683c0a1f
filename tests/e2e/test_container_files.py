"""Dockerfile and docker-compose.yml against the code. That they build and serve is shown by deploy/image-test."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from starlette.testclient import TestClient

import service
from service.settings import PREFIX, Settings, load_settings

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU, CPU = COMPOSE["services"]["poolserve"], COMPOSE["services"]["poolserve-cpu"]


@dataclass
class Stage:
    """What a stage of the Dockerfile comes to, with what it has from the stage it builds on."""

    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [words for name, words in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    def pairs(self, instruction: str) -> dict[str, str]:
        return dict(word.split("=", 1) for words in self.all(instruction) for word in shlex.split(words))

    def copied(self) -> list[str]:
        """What comes from the checkout."""
        return [
            source.rstrip("/") for words in self.all("COPY") if "--from" not in words for source in words.split()[:-1]
        ]


def read_dockerfile() -> dict[str, Stage]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    stages, stage = {}, Stage()
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not instruction:
            continue
        name, words = instruction.split(maxsplit=1)
        if name == "FROM":
            base, _, alias = words.split()
            stage = stages[alias] = Stage(list(stages[base].instructions) if base in stages else [])
        stage.instructions.append((name, words))
    return stages


STAGES = read_dockerfile()
TARGETS = pytest.mark.parametrize("target", ["cpu", "gpu"])
SERVICES = pytest.mark.parametrize("compose", [GPU, CPU], ids=["gpu", "cpu"])


def health_command() -> list[str]:
    (words,) = STAGES["service"].all("HEALTHCHECK")
    return [sys.executable, *json.loads(words[words.index("CMD") + 3 :])[1:]]


def seconds(duration: str) -> int:
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert parts, duration
    return int(parts[1] or 0) * 60 + int(parts[2] or 0)


def written_requirements(folder: Path, target: str) -> list[Requirement]:
    """Run the Dockerfile's own command that says what a target installs."""
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (command,) = [json.loads(words) for words in STAGES["installer"].all("RUN") if words.startswith("[")]
    subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True)
    assert f"--requirement {target}.txt" in STAGES[f"packages-{target}"].last("RUN")
    return [Requirement(line) for line in (folder / f"{target}.txt").read_text().splitlines()]


def closure(wanted: list[Requirement]) -> set[str]:
    """Names of all that is installed with these, as far as it is installed here."""
    names: set[str] = set()
    queue = [(requirement, extra) for requirement in wanted for extra in ("", *requirement.extras)]
    seen = set()
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        names.add(name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for below in map(Requirement, requires(name) or []):
            if below.marker is None or below.marker.evaluate({"extra": extra}):
                queue += [(below, inner) for inner in ("", *below.extras)]
    return names


@TARGETS
def test_target_installs_the_dependencies_and_its_one_extra(target: str, tmp_path: Path) -> None:
    names = {requirement.name for requirement in written_requirements(tmp_path, target)}
    declared = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert names == declared | {"cpu": {"onnxruntime"}, "gpu": {"onnxruntime-gpu"}}[target]


def test_torch_is_in_nothing_that_is_installed_and_all_of_it_is_locked(tmp_path: Path) -> None:
    locked = {
        canonicalize_name(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert {"onnxruntime-gpu", "nvidia-cublas", "nvidia-cudnn-cu13"} <= locked  # not installed here, so not walked
    names = closure(written_requirements(tmp_path, "cpu"))
    assert {
        "onnxruntime",
        "fastapi",
        "starlette",
        "uvloop",
    } <= names  # the walk goes below the first level, and into extras
    assert "torch" not in names
    assert names - locked == set()


def test_a_build_without_target_makes_the_image_that_runs_anywhere() -> None:
    assert list(STAGES)[-1] == "cpu"


@TARGETS
def test_image_runs_the_service_as_an_unprivileged_user(target: str) -> None:
    stage = STAGES[target]
    assert json.loads(stage.last("CMD")) == ["python", "-m", "service"]
    assert stage.last("STOPSIGNAL") == "SIGTERM"
    user, group = stage.last("USER").split(":")
    assert int(user) >= 10000
    assert int(group) >= 10000
    assert "root" not in stage.all("USER")
    assert "apt-get" not in (ROOT / "Dockerfile").read_text()


@TARGETS
def test_image_sends_nothing_home_and_writes_nothing(target: str) -> None:
    variables = STAGES[target].pairs("ENV")
    assert variables["ORT_DISABLE_TELEMETRY"] == "1"
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"


@TARGETS
def test_variables_of_the_image_are_settings(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {name: value for name, value in STAGES[target].pairs("ENV").items() if name.startswith(PREFIX)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings({}, os.environ)
    assert settings.host == "0.0.0.0"
    assert settings.provider == {"cpu": "cpu", "gpu": "cuda"}[target]


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yml", "docs/container.md"])
def test_variables_that_are_named_are_settings(name: str) -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", (ROOT / name).read_text()))
    assert named <= {(PREFIX + setting).upper() for setting in Settings.model_fields}


def test_version_label_is_the_services() -> None:
    assert STAGES["service"].pairs("LABEL")["org.opencontainers.image.version"] == service.__version__


def test_default_base_has_a_python_that_the_project_allows() -> None:
    image = re.search(r"^ARG BASE=python:3\.(\d+)-slim-\w+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert image
    assert PROJECT["requires-python"] == ">=3.11"
    assert int(image[1]) >= 11


def test_all_code_that_the_service_imports_is_copied_and_sent_to_the_builder() -> None:
    here = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    imported = {"service"}
    for file in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    copied = STAGES["code"].copied()
    assert set(copied) - {"LICENSE", str(Settings().models)} == imported & here
    sent = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sent == {*copied, *STAGES["installer"].copied()}


class Answering(HTTPServer):
    """Answers every GET with one status and remembers what was asked for."""

    def __init__(self, status: int) -> None:
        self.asked: list[str] = []

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        asked = self.asked
        super().__init__(("127.0.0.1", 0), Answer)


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
def test_health_check_follows_the_answer_and_asks_what_the_service_has(
    status: int, exit_status: int, client: TestClient
) -> None:
    with Answering(status) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        environment = {
            "POOLSERVE_PORT": str(server.server_port),
            "http_proxy": "http://127.0.0.1:9",
            "PATH": os.defpath,
        }
        done = subprocess.run(health_command(), env=environment, check=False, capture_output=True, timeout=30)
        thread.join()
    assert done.returncode == exit_status
    assert client.get(server.asked[0]).json() == {"status": "ready"}


def test_health_check_fails_where_nobody_listens() -> None:
    with Answering(200) as server:
        port = server.server_port
    environment = {"POOLSERVE_PORT": str(port), "PATH": os.defpath}
    assert (
        subprocess.run(health_command(), env=environment, check=False, capture_output=True, timeout=30).returncode == 1
    )


def test_port_is_the_same_everywhere() -> None:
    port = str(Settings().port)
    assert STAGES["service"].last("EXPOSE") == port
    assert f"'POOLSERVE_PORT', '{port}'" in health_command()[-1]
    for compose in (GPU, CPU):
        (published,) = compose["ports"]
        assert published == f"${{PUBLISH:-127.0.0.1:{port}}}:{port}"


def test_gpu_service_reserves_a_device_and_the_cpu_service_none() -> None:
    (device,) = GPU["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in CPU
    assert GPU["build"]["target"] == "gpu"
    assert CPU["build"]["target"] == "cpu"
    assert "profiles" not in GPU
    assert CPU["profiles"] == ["cpu"]


@SERVICES
def test_container_may_do_no_more_than_it_must(compose: dict[str, object]) -> None:
    assert compose["read_only"] is True
    assert compose["cap_drop"] == ["ALL"]
    assert compose["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "user"} & set(compose)


@SERVICES
def test_models_are_mounted_read_only_where_the_service_looks(compose: dict[str, list[dict[str, object]]]) -> None:
    (mount,) = compose["volumes"]
    assert mount["target"] == f"{STAGES['service'].last('WORKDIR')}/{Settings().models}"
    assert mount["read_only"] is True


@SERVICES
def test_what_is_in_flight_may_finish_before_the_container_is_killed(compose: dict[str, str]) -> None:
    assert seconds(compose["stop_grace_period"]) > Settings().drain_s + Settings().timeout_s + 1
