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

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
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


_STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


class Statistics:
    """One model's counts; lives on the event loop, so it needs no lock.

    Attributes:
        last_ms: milliseconds since 1970 of the last request; 0 before the first.
        samples: images, or tensors.
    """

    def __init__(self) -> None:
        self.last_ms = 0
        self.samples = 0
        self._stages = {name: _Stage() for name in _STAGES}
        self._batches: dict[int, _Batch] = {}

    def succeed(self, answers: Sequence[Answer], *, total_s: float, input_s: float, output_s: float) -> None:
        """Count a request that was answered.

        Args:
            answers: one for each sample.
            total_s: seconds from its headers on.
            input_s: of reading and decoding.
            output_s: of writing.
        """
        stages = self._stages
        self.last_ms = time.time_ns() // 1_000_000
        self.samples += len(answers)
        stages["success"].add(total_s)
        stages["queue"].add(max([answer.queue_s for answer in answers], default=0.0))
        stages["compute_input"].add(input_s)
        stages["compute_infer"].add(max([answer.run_s for answer in answers], default=0.0))
        stages["compute_output"].add(output_s)
        for answer in answers:
            batch = self._batches.get(answer.batch)
            if batch is None:
                batch = self._batches[answer.batch] = _Batch()
            batch.answers += 1
            batch.input_s += input_s / len(answers)
            batch.infer_s += answer.run_s / answer.batch
            batch.output_s += output_s / len(answers)

    def fail(self, total_s: float) -> None:
        """Count a request that was not.

        Args:
            total_s: seconds from its headers on.
        """
        self.last_ms = time.time_ns() // 1_000_000
        self._stages["fail"].add(total_s)

    @property
    def executions(self) -> int:
        """Runs. Those whose answers nobody waited for any more count with the others of their size, rounded up."""
        return sum(-(-batch.answers // size) for size, batch in self._batches.items())

    def page(self) -> dict[str, object]:
        """Give the counts in the extension's words; durations in nanoseconds."""
        batches = []
        for size, batch in sorted(self._batches.items()):
            runs = -(-batch.answers // size)
            stages = {
                "compute_input": batch.input_s,
                "compute_infer": batch.infer_s,
                "compute_output": batch.output_s,
            }
            counted = {name: {"count": runs, "ns": round(seconds * 1e9)} for name, seconds in stages.items()}
            batches.append({"batch_size": size, **counted})
        return {
            "last_inference": self.last_ms,
            "inference_count": self.samples,
            "execution_count": self.executions,
            "inference_stats": {name: stage.page() for name, stage in self._stages.items()},
            "response_stats": {},
            "batch_stats": batches,
            "memory_usage": [],
        }
