"""An application of its own, and a client on it, for as long as a file's tests share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.testclient import TestClient

from service.app import create_app
from service.runtime.repository import Repository
from service.settings import Settings


@contextmanager
def serving(**settings: object) -> Iterator[TestClient]:
    chosen = Settings.model_validate(settings)
    with TestClient(create_app(chosen, Repository.load(chosen)), raise_server_exceptions=False) as made:
        yield made
