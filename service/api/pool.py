"""POST /v1/pool, /v1/pool/gradient, /v1/unpool: tensors in, tensors out; GET /v1/pool/operators: the catalogue.

The three that take tensors are answered by `hot`, before routing; their routes are here for the OpenAPI document and for 405.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from graphs.operators.catalogue import CATALOGUE
from graphs.operators.operator import Operator
from graphs.operators.request import RegionParameters
from service.api.documents import error_responses
from service.api.operations import answers, request_parts
from service.errors import InvalidParameter

router = APIRouter(tags=["tensors"])


class Reference(BaseModel):
    """Where a formula comes from."""

    authors: str = Field(examples=["Radenović, Tolias, Chum"])
    year: int = Field(examples=[2017])
    title: str
    arxiv: str | None = Field(description="arXiv identifier.", examples=["1711.02512"])


class OperatorPage(BaseModel):
    """One operator, as the catalogue has it."""

    name: str = Field(examples=["max"])
    family: str
    summary: str
    formula: str = Field(description="LaTeX.", examples=[r"\max_i x_i"])
    parameters: dict[str, Any] = Field(description="JSON Schema of its own parameters.")
    keeps: str = Field(description="What of a region survives.")
    loses: str = Field(description="What does not.")
    learnable: bool = Field(description="It has weights that a network can learn, and takes them in the request.")
    differentiable: bool = Field(description="/v1/pool/gradient has its gradient.")
    mergeable: str | None = Field(description="What tiles must keep to be merged exactly; null: they cannot be.")
    references: list[Reference]


class Catalogue(BaseModel):
    """Every operator, and the parameters that all of them share."""

    operators: list[OperatorPage]
    regions: dict[str, Any] = Field(description="JSON Schema of the parameters that say over which regions.")


class CatalogueParameters(BaseModel):
    """Which operators are wanted."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, description="Only this one.", examples=["max"])
    family: str | None = Field(None, description="Only those of this family.")


def _page(operator: Operator) -> OperatorPage:
    return OperatorPage(
        name=operator.name,
        family=operator.family,
        summary=operator.summary,
        formula=operator.formula,
        parameters=operator.parameters.model_json_schema(),
        keeps=operator.keeps,
        loses=operator.loses,
        learnable=operator.learnable,
        differentiable=operator.differentiable,
        mergeable=operator.mergeable,
        references=[Reference(**vars(reference)) for reference in operator.references],
    )


@router.get("/v1/pool/operators", summary="List the pooling operators", responses=error_responses(InvalidParameter))
async def list_operators(parameters: Annotated[CatalogueParameters, Query()]) -> Catalogue:
    """The catalogue as data: formula, parameters, what each operator keeps and loses, and where it comes from."""
    _refuse_unknown("name", parameters.name, list(CATALOGUE))
    _refuse_unknown("family", parameters.family, sorted({operator.family for operator in CATALOGUE.values()}))
    found = [
        _page(operator)
        for operator in CATALOGUE.values()
        if parameters.name in {None, operator.name} and parameters.family in {None, operator.family}
    ]
    return Catalogue(operators=found, regions=RegionParameters.model_json_schema())


def _refuse_unknown(parameter: str, value: str | None, known: list[str]) -> None:
    if value is not None and value not in known:
        nearest = difflib.get_close_matches(value[:64], known, n=3, cutoff=0.0)
        raise InvalidParameter(f"{parameter}: expected one of the catalogue's; the nearest are {', '.join(nearest)}")


@router.post(
    "/v1/pool", summary="Pool a tensor or a picture", openapi_extra=request_parts("pool"), responses=answers("pool")
)
async def pool() -> None:
    """A statistic (`op`) over regions: windows (`kernel`), a grid (`output_size`), a pyramid (`levels`), `boxes`, `labels`, all.

    The tensor comes as JSON (nested lists, flat, base64), as a .npy or .npz file, as a form, as raw little-endian numbers, or as
    a picture. The answer has the same form, or the one that `Accept` names. Of a JSON request, `ops` applies several operators.
    """
    raise AssertionError("answered before routing")


@router.post(
    "/v1/pool/gradient",
    summary="The gradient of a pooling",
    openapi_extra=request_parts("gradient"),
    responses=answers("gradient"),
)
async def pool_gradient() -> None:
    """What the tensor's gradient is, given that of the pooled tensor (`grad_output`, ones if absent): `grad_input`.

    Of the maximum it is the mask of what was taken, of the average it is spread evenly.
    """
    raise AssertionError("answered before routing")


@router.post("/v1/unpool", summary="Undo a pooling", openapi_extra=request_parts("unpool"), responses=answers("unpool"))
async def unpool() -> None:
    """The pseudo-inverse that decoders use: a pooled tensor in, one of `output_size` out.

    `op=max` puts each value where `indices` say, `op=avg` spreads it over its window, `op=nearest` repeats it.
    """
    raise AssertionError("answered before routing")
