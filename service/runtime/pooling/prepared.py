"""A prepared request: everything is checked and chosen, only the tensor is missing."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from graphs.operators.compose import Nan, Variant, compose
from graphs.operators.native import compose_native
from graphs.operators.operator import Operator, Parameters
from graphs.operators.regions.block import Regions
from graphs.operators.regions.windows import WindowGeometry
from graphs.operators.request import RegionParameters
from service.errors import DeadlineExceeded, InvalidTensor
from service.runtime.pooling.feeds import TABLE_CELLS, Table, tables
from service.runtime.pooling.kinds import Kind, oddities
from service.runtime.pooling.layout import Layout
from service.runtime.pooling.sessions import Sessions
from service.runtime.pooling.sums import exact_sum, largest_magnitude
from service.runtime.pooling.whole import Fixed, Whole

RUN_CELLS = 2**21
"""Gathered cells of one run: what a run needs stays in tens of megabytes whatever the tensor's size."""

NATIVE_GAIN = 10
"""Cells that a window's own kernel takes in the time of a gathered one: 0.2 ns each, measured, instead of 2."""

_SMALL = 2**21
"""Tensors of at most so many elements, if their windows have a kernel of their own, run in one go."""

_LONE = 2**19
"""Elements whose windows one thread takes, in 0.4 ms at most. A second one saves half of that where its core is free; where it is
not, it is waited for until others' time there is over, 3 ms."""

_KEPT_CELLS = 2**16
"""Tables of at most so many cells are kept with the prepared request."""


@dataclass
class Pooled:
    """The answer.

    Attributes:
        tensor: the pooled tensor, or the gradient by the input.
        indices: int64, flat in each plane; None unless asked for.
        counts: int64, cells of each region; None unless asked for.
    """

    tensor: np.ndarray
    indices: np.ndarray | None = None
    counts: np.ndarray | None = None


@dataclass(frozen=True)
class Room:
    """Numbers that a region takes up while it is pooled: `cell` for each of its cells, and `region` for its answer."""

    cell: int
    region: int

    def cells_at_once(self, regions: Regions) -> int:
        """Cells that a table may have so that one sample's run stays within `RUN_CELLS` numbers, or one region."""
        each = max(1, regions.cells // max(1, math.prod(regions.shape)))
        return max(1, min(TABLE_CELLS, RUN_CELLS // (self.cell + self.region // each)))


def room_of(operator: Operator, parameters: Parameters, layout: Layout) -> Room:
    """Tell what a region takes up; of a sample for joint operators, else of one channel."""
    channels = layout.lead[-1] if layout.lead else 1
    own = channels if operator.joint else 1
    beside = operator.beside(channels, parameters) if operator.beside else 0
    return Room(max(1, own + beside), operator.answer(channels, parameters) if operator.answer else own)


@dataclass(eq=False)
class Unit:
    """Samples that share their regions: planes, or all channels of samples for joint operators."""

    rows: slice
    regions: Regions
    _kept: list[Table] | None = field(default=None, init=False)

    def tables(self, prepared: Prepared) -> Iterator[Table]:
        """Build the tables, or take those that were kept."""
        if self._kept is not None:
            yield from self._kept
            return
        operator = prepared.operator
        made = tables(
            self.regions,
            prepared.kind.arithmetic,
            joint=operator.joint,
            divided=operator.linear and operator.answers != "sum",
            together=operator.together,
            compared=operator.answers == "same",
            most=prepared.room.cells_at_once(self.regions),
        )
        if self.regions.cells > _KEPT_CELLS:
            yield from made
        else:
            self._kept = list(made)
            yield from self._kept


@dataclass(eq=False)
class Prepared:
    """A request that can run. Blocks; any number of threads may run it at once.

    Attributes:
        work: numbers that are made of gathered cells, all in all.
        room: what a region takes up while it is pooled.
    """

    operator: Operator
    parameters: Parameters
    request: RegionParameters
    layout: Layout
    kind: Kind
    units: list[Unit]
    feeds: Mapping[str, np.ndarray]
    structure: Hashable
    sessions: Sessions
    work: int
    room: Room
    native: WindowGeometry | None = None
    _whole: Whole | None = field(default=None, init=False)

    def run(self, x: np.ndarray, deadline: float) -> Pooled:
        """Pool one tensor.

        Args:
            x: of the shape and dtype that was prepared for.
            deadline: on the clock of `time.monotonic`; looked at between runs.

        Raises:
            InvalidTensor: 422; NaN where `nan` is `reject`, or integers whose sum does not fit.
            DeadlineExceeded: 504.
        """
        if self._whole is not None:
            pooled = self._whole.run(x)
            if pooled is not None:
                return Pooled(pooled)
        samples = self.samples(x)
        shape = self.units[0].regions.shape
        count = int(np.prod(shape, dtype=np.int64))
        summed = self.operator.answers == "sum" and self.kind.output == "int64"
        largest = largest_magnitude(samples) if summed else 0
        y: np.ndarray | None = None
        indices = np.zeros((len(samples), count), np.int64) if self.request.return_indices else None
        for unit in self.units:
            for part, table in self.pieces(unit, deadline):
                values = samples[part]
                nan, finite = self.look(values)
                if table is None and finite:
                    out = self._run_native(values)
                    y = _room(y, len(samples), out)
                    y[part] = out
                    continue
                for piece in unit.tables(self) if table is None else [table]:
                    variant = self.variant(piece, nan, "pool")
                    if summed:
                        add = partial(self.run_table, table=piece, variant=variant)
                        out = exact_sum(values, piece.terms, largest, add)
                    else:
                        out = self.run_table(values, piece, variant)
                    if self.kind.output in {"int32", "int64"} and piece.empty.any():
                        out[:, piece.empty] = self.kind.zero
                    y = _room(y, len(samples), out, None if self.operator.together else count)
                    y[part, piece.block.rows if y.shape[1] == count else slice(None)] = out
                    if indices is not None:
                        found = self.run_table(values, piece, self.variant(piece, nan, "indices"))
                        indices[part, piece.block.rows] = found[..., 0]
        assert y is not None  # every unit has a piece, also without rows
        if self.operator.together:
            shape = shape if y.shape[1] == count else ()
        answer = self._axes(self.kind.finish(y), shape)
        found_at = None if indices is None else self.layout.from_rows(indices, self.layout.lead, shape)
        return Pooled(answer, found_at, self._counts() if self.request.return_counts else None)

    def fixed(self) -> Fixed | None:
        """What pools tensors of this shape without making an array; None before a run has found that it can."""
        return None if self._whole is None else self._whole.fixed()

    def samples(self, x: np.ndarray) -> np.ndarray:
        """The tensor as (B,L), or (N,C,L) for joint operators."""
        rows = self.layout.to_rows(x)
        if not self.operator.joint:
            return rows
        channels = self.layout.lead[-1]
        return rows.reshape(len(rows) // max(1, channels), channels, rows.shape[-1])

    def pieces(self, unit: Unit, deadline: float) -> Iterator[tuple[slice, Table | None]]:
        """Cut a unit into runs: rows, and the table that they run with; None for windows with a kernel of their own."""
        width = int(np.prod(self.layout.plane)) * (self.layout.lead[-1] if self.operator.joint else 1)
        if self.native is not None:
            yield from ((part, None) for part in _chunks(unit.rows, RUN_CELLS // max(1, width), deadline))
            return
        for table in unit.tables(self):
            size = max(1, table.regions * (table.cells * self.room.cell + self.room.region))
            for part in _chunks(unit.rows, RUN_CELLS // size, deadline):
                yield part, table

    def look(self, values: np.ndarray) -> tuple[Nan, bool]:
        """What NaN there is, as a variant's rule, and whether all is finite.

        Raises:
            InvalidTensor: 422; there is NaN and it was to be rejected.
        """
        nan, finite = oddities(values)
        if nan and self.request.nan == "reject":
            raise InvalidTensor("expected numbers only, got NaN; nan=propagate or nan=omit takes it")
        return ("omit" if self.request.nan == "omit" else "propagate") if nan else "none", finite

    def variant(self, table: Table, nan: Nan, action: str) -> Variant:
        """Which graph a table needs."""
        feeds = table.feeds
        wanted = "index" in feeds, "weight" in feeds, "divisor" in feeds and self.request.nan != "omit"
        return Variant(self.kind.dtype, self.kind.arithmetic, self.kind.output, *wanted, nan, action)  # type: ignore[arg-type]

    def run_table(self, values: np.ndarray, table: Table, variant: Variant, **more: np.ndarray) -> np.ndarray:
        """Run the graph of a variant over the regions of a table. Returns its only output."""
        key = (self.operator.name, self.structure, variant)
        session = self.sessions.get(key, lambda: compose(self.operator, self.parameters, variant))
        empty = not len(values)
        if empty:  # a graph that reshapes needs a sample to reshape
            values = np.zeros((1, *values.shape[1:]), values.dtype)
            more = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in more.items()}
        x = self.kind.feed(values)
        if not variant.gathered:
            x = x[:, None]
        fed = {"x": x, **table.feeds, **self.feeds, **more}
        y = session.run({name: fed[name] for name in session.inputs})[0]
        return y[:0] if empty else y

    def _run_native(self, values: np.ndarray) -> np.ndarray:
        """Pool windows by their own kernel: (B,L) → (B,R,1)."""
        geometry = self.native
        assert geometry is not None
        name, dtype, counted = self.operator.name, values.dtype.name, self.request.count_include_pad
        threads = 1 if math.prod(self.layout.shape) <= _LONE else 0
        key = ("native", name, dtype, geometry, counted, threads)
        session = self.sessions.get(
            key,
            lambda: compose_native(name, geometry, dtype, count_include_pad=counted),  # type: ignore[arg-type]
            threads=threads,
        )
        plain = not self.layout.moves and not self.request.return_counts and values.dtype != np.float16
        if plain and math.prod(self.layout.shape) <= _SMALL:
            answer = (*self.layout.lead, *geometry.output)
            # The next one of this kind takes the short way.
            self._whole = Whole(session, (self.layout.rows, 1, *geometry.plane), answer, values.dtype)
        y = session.run({"x": values.reshape(len(values), 1, *geometry.plane)})[0]
        return y.reshape(len(values), math.prod(geometry.output), 1)

    def _axes(self, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """(B,R,K) or (N,R,D) → the answer's axes: several numbers of a region lie side by side on the channel axis."""
        lead = self.layout.lead
        if self.operator.joint:
            return self.layout.from_rows(np.ascontiguousarray(y.swapaxes(1, 2)), (*lead[:-1], y.shape[2]), shape)
        width = y.shape[2]
        if width == 1:
            return self.layout.from_rows(y, lead, shape)
        channels = lead[-1] if lead else 1
        outer = lead[:-1]
        y = y.reshape(*outer, channels, y.shape[1], width)
        y = np.ascontiguousarray(np.moveaxis(y, -1, len(outer)))  # (…, K, C, R)
        return self.layout.from_rows(y, (*outer, width * channels), shape)

    def _counts(self) -> np.ndarray:
        counts = [unit.regions.counts().reshape(unit.regions.shape) for unit in self.units]
        return counts[0] if len(counts) == 1 else np.stack(counts)


def _chunks(rows: slice, most: int, deadline: float) -> Iterator[slice]:
    for start in range(rows.start, max(rows.stop, rows.start + 1), max(1, most)):  # no rows: one empty run
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the time limit passed while the tensor was pooled")
        yield slice(start, min(start + max(1, most), rows.stop))


def _room(y: np.ndarray | None, rows: int, result: np.ndarray, regions: int | None = None) -> np.ndarray:
    """The array that results are written into, made when the first of them says how wide it must be."""
    return np.zeros((rows, regions or result.shape[1], result.shape[2]), result.dtype) if y is None else y
