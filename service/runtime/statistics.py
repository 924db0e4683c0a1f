"""What a model has done since the start, as the statistics extension counts it (Triton, docs/protocol/extension_statistics.md)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from service.runtime.batcher import Answer


@dataclass(slots=True)
class _Stage:
    """How often something was done, and seconds of all of it."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def page(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(self.seconds * 1e9)}


@dataclass(slots=True)
class _Batch:
    """Runs of one size, by the answers that came out of them: each answer is its share of a run."""

    answers: int = 0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0


class Statistics:
    """One model's counts; lives on the event loop, so it needs no lock.

    Attributes:
        last_ms: milliseconds since 1970 of the last request; 0 before the first.
        samples: images, or tensors.
    """

    def __init__(self) -> None:
        self.last_ms = 0
        self.samples = 0
        self._success, self._fail, self._queue = _Stage(), _Stage(), _Stage()
        self._input, self._infer, self._output = _Stage(), _Stage(), _Stage()
        self._batches: dict[int, _Batch] = {}

    def succeed(self, answers: Sequence[Answer], *, total_s: float, input_s: float, output_s: float) -> None:
        """Count a request that was answered.

        Args:
            answers: one for each sample.
            total_s: seconds from its headers on.
            input_s: of reading and decoding.
            output_s: of writing.
        """
        self.last_ms = time.time_ns() // 1_000_000
        count = len(answers)
        self.samples += count
        self._success.add(total_s)
        self._queue.add(answers[0].queue_s if count == 1 else max([answer.queue_s for answer in answers], default=0.0))
        self._input.add(input_s)
        self._infer.add(answers[0].run_s if count == 1 else max([answer.run_s for answer in answers], default=0.0))
        self._output.add(output_s)
        for answer in answers:
            size = answer.batch
            batch = self._batches.get(size)
            if batch is None:
                batch = self._batches[size] = _Batch()
            batch.answers += 1
            batch.input_s += input_s / count
            batch.infer_s += answer.run_s / size
            batch.output_s += output_s / count

    def fail(self, total_s: float) -> None:
        """Count a request that was not.

        Args:
            total_s: seconds from its headers on.
        """
        self.last_ms = time.time_ns() // 1_000_000
        self._fail.add(total_s)

    @property
    def executions(self) -> int:
        """Runs. Those whose answers nobody waited for any more count with the others of their size, rounded up."""
        return sum(-(-batch.answers // size) for size, batch in self._batches.items())

    def page(self) -> dict[str, object]:
        """Give the counts in the extension's words; durations in nanoseconds."""
        stages = {
            "success": self._success,
            "fail": self._fail,
            "queue": self._queue,
            "compute_input": self._input,
            "compute_infer": self._infer,
            "compute_output": self._output,
            "cache_hit": _Stage(),  # there is no cache of answers
            "cache_miss": _Stage(),
        }
        batches = []
        for size, batch in sorted(self._batches.items()):
            runs = -(-batch.answers // size)
            durations = {
                "compute_input": batch.input_s,
                "compute_infer": batch.infer_s,
                "compute_output": batch.output_s,
            }
            counted = {name: {"count": runs, "ns": round(seconds * 1e9)} for name, seconds in durations.items()}
            batches.append({"batch_size": size, **counted})
        return {
            "last_inference": self.last_ms,
            "inference_count": self.samples,
            "execution_count": self.executions,
            "inference_stats": {name: stage.page() for name, stage in stages.items()},
            "response_stats": {},
            "batch_stats": batches,
            "memory_usage": [],
        }
