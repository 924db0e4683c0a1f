"""Where a model was loaded from: its files, which are read again when something is asked for that most models never need."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from graphs.card import ModelCard
from service.runtime.reading import read_model, state_of


class Source:
    """The files of one version of one model."""

    def __init__(self, path: Path) -> None:
        """Note what they are like now.

        Args:
            path: of the ONNX file.
        """
        self.path = path
        self._state = state_of(path)

    def read(self) -> tuple[ir.Model, ModelCard]:
        """Read the graph and its card.

        Raises:
            BrokenModel: as `read_model`.
            ValueError: the files are no longer those that were loaded, and their graph would answer something else.
        """
        if state_of(self.path) != self._state:
            raise ValueError(f"{self.path}: its files have changed since the model was loaded; restart to serve them")
        return read_model(self.path)
