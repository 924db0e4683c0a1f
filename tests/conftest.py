"""Fixtures for all tests: a clean environment, randomness with its seed shown, small models, clients on apps of their own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.runtime.repository import Repository
from service.settings import PREFIX, Settings
from tests.tiny import TinyClassifier, card


def pytest_report_header() -> str:
    import onnxruntime  # here and below: after `service`, which sets its environment

    return f"onnxruntime {onnxruntime.__version__}, providers {', '.join(onnxruntime.get_available_providers())}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="this onnxruntime has no CUDA provider"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def rng() -> np.random.Generator:
    """Fresh numbers each run; the seed is in the captured output of a failure. SEED=… repeats one."""
    seed = int(os.environ.get("SEED", secrets.randbits(32)))
    print(f"SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of two classifiers: `colour` (RGB) and `grey` (L)."""
    folder = tmp_path_factory.mktemp("models")
    TinyClassifier.random(1).save(folder / "colour" / "1", card())
    TinyClassifier.random(2, channels=1).save(folder / "grey" / "3", card("L"))
    return folder


MakeClient = Callable[..., TestClient]


@pytest.fixture
def make_client(model_folder: Path) -> Iterator[MakeClient]:
    """A factory of clients: `make_client(max_images=2)` gives one on an app with that setting."""
    with ExitStack() as stack:

        def make(**overrides: object) -> TestClient:
            settings = Settings.model_validate({"models": model_folder, **overrides})
            app = create_app(settings, Repository.load(settings))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()
