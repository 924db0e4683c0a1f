"""From a request to something that can run: every check is made here, before anything of the tensor's size is allocated."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson

from graphs.operators.catalogue import UnknownOperator, find
from graphs.operators.native import runs_natively
from graphs.operators.operator import Operator, Parameters
from graphs.operators.regions.block import RegionError, Regions
from graphs.operators.request import RegionParameters
from graphs.operators.systems import check_named, geometry_of, regions_of
from graphs.operators.weights import WeightError, checked_weights
from service.errors import InvalidParameter, InvalidTensor, PayloadTooLarge
from service.runtime.pooling.given import Action, check_arrays, feeds_of, split
from service.runtime.pooling.gradient import differentiate
from service.runtime.pooling.kinds import kind_of
from service.runtime.pooling.layout import Layout, layout_of
from service.runtime.pooling.prepared import NATIVE_GAIN, Pooled, Prepared, Unit, room_of
from service.runtime.pooling.sessions import Sessions
from service.runtime.pooling.unpool import prepare_unpool
from service.runtime.pooling.whole import Fixed
from service.runtime.session import Provider
from service.settings import Settings

_REGION_ARRAYS = ("boxes", "labels", "mask")


@dataclass(frozen=True, eq=False)
class Course:
    """What `prepare` gives: the work it will be, and how to run it.

    Attributes:
        work: cells gathered, all in all, or what takes as long.
        size: numbers in the answer, at most.
        run: (tensor, deadline) → the answer; blocks.
        fixed: what pools other tensors of the shape and dtype on the shortest way, if there is one and a run has found it.
    """

    work: int
    size: int
    run: Callable[[np.ndarray, float], Pooled]
    fixed: Callable[[], Fixed | None] = lambda: None


class _Wanted(NamedTuple):
    """The parts of a request, as `prepare` takes them."""

    action: Action
    op: str
    given: Mapping[str, object]
    arrays: Mapping[str, np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype


class Pooler:
    """Prepares requests; keeps the sessions and the last configurations."""

    def __init__(self, settings: Settings, provider: Provider) -> None:
        self.sessions = Sessions(provider, settings.device_id, most=settings.max_sessions)
        self._max_elements = settings.max_tensor_elements
        self._max_work = settings.max_pool_cells
        self._known: OrderedDict[Hashable, Course] = OrderedDict()

    def prepare(  # noqa: PLR0917 – the parts of a request, in the order in which they are known
        self,
        action: Action,
        op: str,
        parameters: Mapping[str, object],
        arrays: Mapping[str, np.ndarray],
        shape: tuple[int, ...],
        dtype: np.dtype,
    ) -> Course:
        """Check a request and choose everything that it needs.

        Args:
            action: pool, differentiate or invert.
            op: the operator's name.
            parameters: regions' and the operator's, JSON values or strings of a query.
            arrays: `mask`, `labels`, `boxes`, `grad_output`, `indices` and operators' weights, by name.
            shape: of the tensor.
            dtype: of the tensor.

        Raises:
            InvalidParameter: 422; says the rule and the numbers.
            InvalidTensor: 422; the tensor or an array does not fit.
            PayloadTooLarge: 413; the answer or the work would pass its limit.
        """
        key: Hashable = None
        if not arrays:
            key = action, op, orjson.dumps(parameters), shape, dtype.char
            course = self._known.get(key)
            if course is not None:
                return course
        try:
            course = self._prepare(_Wanted(action, op, parameters, arrays, shape, dtype))
        except UnknownOperator as error:
            raise InvalidParameter(f"op: {error}") from None
        except RegionError as error:
            raise InvalidParameter(str(error)) from None
        except WeightError as error:
            raise InvalidTensor(str(error)) from None
        if key is not None:
            self._known[key] = course
            while len(self._known) > 256:
                self._known.popitem(last=False)
        return course

    def _prepare(self, wanted: _Wanted) -> Course:
        action, op, given, arrays, shape, dtype = wanted
        check_arrays(action, arrays)
        if action == "unpool":
            return Course(*prepare_unpool(op, given, arrays, shape, self.sessions, self._max_elements))
        operator = find(op)
        request, parameters = split(operator, given, arrays)
        check_named((frozenset(given) | frozenset(arrays)) - frozenset(operator.parameters.model_fields))
        if request.return_indices and operator.name not in {"max", "min"}:
            raise InvalidParameter(f"return_indices: only max and min come from one cell, {operator.name!r} does not")
        layout = layout_of(shape, request)
        if operator.joint and not layout.lead:
            raise InvalidTensor(f"{operator.name!r} sees all channels: expected a channel axis beside the pooled ones")
        if request.groups is not None:
            request = request.model_copy(update={"kernel": layout.plane[0] // request.groups, "groups": None})
        if operator.labels is not None and "labels" not in arrays:
            return self._label(wanted, operator, parameters, layout)
        if operator.weights:
            named = {name: getattr(parameters, name) for name in operator.weights}
            checked = checked_weights(operator, named, layout.lead[-1] if layout.lead else 1, math.prod(layout.plane))
            parameters = parameters.model_copy(update=checked)
        units = self._units(operator, parameters, layout, request, arrays)
        work = sum(unit.regions.cells * _length(unit.rows) for unit in units)
        room = room_of(operator, parameters, layout)
        work *= room.cell
        regions = 1 if operator.together else math.prod(units[0].regions.shape)
        samples = layout.rows // max(1, layout.lead[-1]) if operator.joint else layout.rows
        size = regions * samples * room.region
        if size > self._max_elements:
            raise PayloadTooLarge(
                f"expected at most {self._max_elements} numbers in an answer, this one would have up to {size}"
            )
        if work > self._max_work:
            raise PayloadTooLarge(f"expected regions of at most {self._max_work} cells in all, these have {work}")
        largest = max(1, max(unit.regions.cells for unit in units) // max(1, regions))
        kind = kind_of(operator, dtype, largest)
        native = None
        if request.kernel is not None and action == "pool" and not arrays and operator.regions is None:
            geometry = geometry_of(layout.plane, request)
            plain = request.divisor_override is None and not request.return_indices
            plain &= not (request.nan == "omit" and request.count_include_pad)  # what is omitted does not divide
            native = geometry if plain and runs_natively(op, geometry, dtype.name) else None
        feeds, structure = feeds_of(parameters, kind.arithmetic)
        prepared = Prepared(
            operator, parameters, request, layout, kind, units, feeds, structure, self.sessions, work, room, native
        )
        if action == "pool":
            return Course(work if native is None else work // NATIVE_GAIN, size, prepared.run, prepared.fixed)
        if not operator.differentiable:
            raise InvalidParameter(f"op: {operator.name!r} has no gradient")
        seed = arrays.get("grad_output")
        return Course(
            3 * work, math.prod(shape), lambda x, deadline: Pooled(differentiate(prepared, x, seed, deadline))
        )

    def _label(self, wanted: _Wanted, operator: Operator, parameters: Any, layout: Layout) -> Course:
        """Prepare an operator whose segments come from the tensor's numbers: the same request, with labels once they are known."""
        lead, plane = layout.lead[:-1], layout.plane
        samples, cells = math.prod(lead), math.prod(plane)
        channels = layout.lead[-1] if layout.lead else 1

        def labelled(labels: np.ndarray) -> Course:
            given = {**wanted.given, "segments": parameters.clusters}
            arrays = {**wanted.arrays, "labels": labels.reshape(*lead, *plane)}
            return self._prepare(wanted._replace(given=given, arrays=arrays))

        assert operator.labels is not None
        assert operator.labelling is not None
        find_labels = operator.labels
        work = samples * operator.labelling(cells, parameters)
        if work > self._max_work:
            raise PayloadTooLarge(f"expected at most {self._max_work} distances to clusters, these are {work}")
        after = labelled(np.zeros((samples, cells), np.int64))  # and all else is checked

        def run(x: np.ndarray, deadline: float) -> Pooled:
            rows = layout.to_rows(x).reshape(samples, channels, cells)
            return labelled(find_labels(rows, plane, parameters)).run(x, deadline)

        return Course(work + after.work, after.size, run)

    def _units(
        self,
        operator: Operator,
        parameters: Parameters,
        layout: Layout,
        request: RegionParameters,
        arrays: Mapping[str, np.ndarray],
    ) -> list[Unit]:
        samples = layout.rows // (layout.lead[-1] or 1) if operator.joint else layout.rows
        shared = {name: array for name, array in arrays.items() if name in _REGION_ARRAYS}
        apart = {name: array for name, array in shared.items() if name != "boxes" and array.shape != layout.plane}

        most = max(1, self._max_elements // max(1, layout.rows))

        def system(arrays: Mapping[str, np.ndarray], request: RegionParameters) -> Regions:
            return regions_of(operator, parameters, layout.plane, request, arrays, max_regions=most)

        if not apart:
            return [Unit(slice(0, samples), system(shared, request))]
        prefix = _prefix(apart, layout, joint=operator.joint)
        count = math.prod(prefix)
        if "labels" in apart and request.segments is None:
            most = int(apart["labels"].max(initial=-1)) + 1
            request = request.model_copy(update={"segments": max(1, most)})
        flat = {name: array.reshape(count, *layout.plane) for name, array in apart.items()}
        if not count:  # no samples, and yet regions, which say the answer's shape
            flat, count = {name: np.zeros((1, *layout.plane), array.dtype) for name, array in flat.items()}, 1
        step = samples // count
        return [
            Unit(
                slice(place * step, (place + 1) * step),
                system(shared | {name: array[place] for name, array in flat.items()}, request),
            )
            for place in range(count)
        ]


def _prefix(arrays: Mapping[str, np.ndarray], layout: Layout, *, joint: bool) -> tuple[int, ...]:
    """The leading axes that masks and labels have of their own.

    Raises:
        InvalidTensor: 422; they are not the tensor's first axes, or not the same for both.
    """
    lead = layout.lead[:-1] if joint else layout.lead
    prefixes = set()
    for name, array in arrays.items():
        prefix, plane = array.shape[: -len(layout.plane)], array.shape[-len(layout.plane) :]
        if plane != layout.plane or prefix != lead[: len(prefix)]:
            raise InvalidTensor(
                f"{name}: expected the plane {list(layout.plane)}, or that behind the first of the axes {list(lead)}, "
                f"got the shape {list(array.shape)}"
            )
        prefixes.add(prefix)
    if len(prefixes) > 1:
        raise InvalidTensor("expected mask and labels with the same leading axes")
    return prefixes.pop()


def _length(rows: slice) -> int:
    length: int = rows.stop - rows.start
    return length
