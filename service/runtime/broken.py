"""What is said of a model that cannot be served."""

from __future__ import annotations

from pathlib import Path


class BrokenModel(Exception):
    """A model that cannot be served; the message says which file and why.

    Attributes:
        reason: why, without the host's path: for clients. The message is for the log.
    """

    def __init__(self, reason: str, path: Path | None = None) -> None:
        """Say it.

        Args:
            reason: names nothing but what lies in the model's folder.
            path: the file or folder that it is about.
        """
        super().__init__(reason if path is None else f"{path}: {reason}")
        self.reason = reason
