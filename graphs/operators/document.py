"""The catalogue as a page: docs/operators.md is what this writes, and a test holds it to that."""

from __future__ import annotations

from typing import Any

from graphs.operators.catalogue import CATALOGUE, LEFT_OUT
from graphs.operators.operator import Operator
from graphs.operators.request import RegionParameters

HEAD = """# Operators

Written by `python -m graphs.operators > docs/operators.md` from the catalogue in `graphs/operators/`;
`GET /v1/pool/operators` gives the same as data.

**A pooling is a statistic over regions.** The statistic is `op`; the regions come from the other parameters, so every pair
that makes sense exists without a name of its own. `POST /v1/pool/gradient` differentiates each of them by its input unless
its entry says otherwise.
"""


def document() -> str:
    """Write the whole page, in Markdown."""
    parts = [
        HEAD,
        "## Regions and what is common to all operators\n",
        _parameters(RegionParameters.model_json_schema()),
    ]
    families: dict[str, list[Operator]] = {}
    for operator in CATALOGUE.values():
        families.setdefault(operator.family, []).append(operator)
    for family, operators in families.items():
        parts.append(f"## {family.capitalize()}\n")
        parts.extend(_entry(operator) for operator in operators)
    parts.append("## Left out\n")
    parts.append("\n".join(f"- **{name}**: {reason}" for name, reason in LEFT_OUT.items()) + "\n")
    return "\n".join(parts)


def _entry(operator: Operator) -> str:
    lines = [
        f"### {operator.name}\n",
        operator.summary,
        "",
        f"$$ {operator.formula} $$",
        "",
        f"Keeps {operator.keeps}; loses {operator.loses}.",
    ]
    traits = [
        "sees all channels of a sample" if operator.joint else "each channel by itself",
        "has a gradient" if operator.differentiable else "has no gradient",
        f"tiles merge by {operator.mergeable}" if operator.mergeable else "tiles cannot be merged",
    ]
    if operator.learnable:
        traits.append("takes its weights in the request")
    if operator.regions is not None:
        traits.append("brings its own regions")
    lines += ["", f"*{'; '.join(traits)}.*", ""]
    schema = operator.parameters.model_json_schema()
    if schema.get("properties"):
        lines.append(_parameters(schema))
    lines += [
        f"{r.authors} ({r.year}). {r.title}."
        + (f" [arXiv:{r.arxiv}](https://arxiv.org/abs/{r.arxiv})" if r.arxiv else "")
        for r in operator.references
    ]
    return "\n".join(lines) + "\n"


def _parameters(schema: dict[str, Any]) -> str:
    lines = ["| parameter | default | |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", []) else field.get("default")
        shown = "–" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        lines.append(f"| `{name}` | {shown} | {field.get('description', '').replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"
