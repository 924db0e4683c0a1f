"""An application whose models run on the event loop, whatever the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.runtime.repository import Repository
from service.settings import Settings


@pytest.fixture
def app(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    monkeypatch.setattr("service.runtime.handover.hand_over_s", lambda: 1e3)
    settings = Settings(models=model_folder, provider="cpu", body_timeout_s=0.05)
    repository = Repository.load(settings)
    repository.start()
    yield create_app(settings, repository)
    repository.stop()
