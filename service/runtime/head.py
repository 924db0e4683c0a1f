"""A network's head by itself: it makes the outputs of any map of features."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np

from graphs.anysize.cut import FEATURES
from service.errors import DeadlineExceeded
from service.runtime.session import Session

_NUMBERS = 2**22
"""Numbers of features that it is given at once, 16 MiB of them."""


class Head:
    """The head's session; any thread, one at a time.

    Attributes:
        weighted: whether it pools by attention, so that `run` gives cut.WEIGHTS.
    """

    def __init__(self, session: Session, *, batch: int | None, weighted: bool) -> None:
        """Begin.

        Args:
            session: FEATURES in, the network's outputs out.
            batch: images of a run, where the graph fixes it.
            weighted: whether it pools by attention.
        """
        self.weighted = weighted
        self._session = session
        self._batch = batch
        self._free = threading.Lock()

    def run(self, maps: np.ndarray, deadline: float) -> Mapping[str, np.ndarray]:
        """Run it; blocks.

        Args:
            maps: features float32 (N,C,h,w), h and w at least 1.
            deadline: on the clock of `time.monotonic`; looked at between runs.

        Returns:
            The network's outputs by name, N each; and cut.WEIGHTS (N,h·w) where it pools by attention.

        Raises:
            DeadlineExceeded: 504.
        """
        session, batch = self._session, self._batch
        most = batch or max(1, _NUMBERS // maps[0].size)
        parts: list[list[np.ndarray]] = []
        for start in range(0, len(maps), most):
            if time.monotonic() > deadline:
                raise DeadlineExceeded("the time limit passed while the map was computed")
            part = maps[start : start + most]
            missing = (batch or 0) - len(part)
            fed = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing > 0 else part
            with self._free:
                outputs = session.run({FEATURES: np.ascontiguousarray(fed)})
            parts.append([output[: len(part)] for output in outputs])
        return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(session.outputs)}
