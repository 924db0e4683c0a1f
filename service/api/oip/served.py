"""What the protocol calls a model: those of the repository, and the operators."""

from __future__ import annotations

from typing import NamedTuple

from service.api.oip import pooling
from service.api.state import State
from service.errors import ModelNotFound
from service.runtime.model import Model
from service.runtime.statistics import Statistics


class Served(NamedTuple):
    """One version of one model.

    Attributes:
        name: unique.
        version: a number, as text.
        statistics: what it has done.
        model: None: it is the operators.
    """

    name: str
    version: str
    statistics: Statistics
    model: Model | None

    @property
    def alive(self) -> bool:
        """Whether it can answer."""
        return self.model is None or self.model.alive


def all_served(state: State) -> list[Served]:
    """List everything that is served: of a model its highest version first, the operators last."""
    models = [Served(model.name, model.version, model.statistics, model) for model in state.repository.served]
    return [*models, Served(pooling.NAME, pooling.VERSION, state.pool_statistics, None)]


def find(state: State, name: str, version: str | None) -> Served:
    """Get one.

    Raises:
        ModelNotFound (404): no such model, or no such version of it.
    """
    if name == pooling.NAME:
        if version not in {None, pooling.VERSION}:
            raise ModelNotFound(f"model {name} has no such version; there is: {pooling.VERSION}")
        return Served(name, pooling.VERSION, state.pool_statistics, None)
    model = state.repository.find(name, version)
    return Served(model.name, model.version, model.statistics, model)
