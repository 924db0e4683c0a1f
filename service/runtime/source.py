"""Where a model was loaded from: its files, which are read again when something is asked for that most models never need."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from graphs.card import ModelCard
from service.runtime.configuration import Configuration
from service.runtime.reading import read_model, state_of


class Source:
    """The files of one version of one model.

    Attributes:
        path: of the ONNX file.
        max_batch: images of one run at most, where the configuration says so.
    """

    def __init__(self, path: Path, configuration: Configuration | None = None) -> None:
        """Note what they are like now.

        Args:
            path: of the ONNX file.
            configuration: of the model, for what the file does not say.
        """
        self.path, self._configuration = path, configuration
        self.max_batch = (configuration.max_batch_size if configuration else 0) or None
        self._state = state_of(path)

    def read(self) -> tuple[ir.Model, ModelCard]:
        """Read the graph and its card.

        Raises:
            BrokenModel: as `read_model`.
            ValueError: the files are no longer those that were loaded, and their graph would answer something else.
        """
        if state_of(self.path) != self._state:
            raise ValueError(f"{self.path}: its files have changed since the model was loaded; restart to serve them")
        return read_model(self.path, self._configuration)
