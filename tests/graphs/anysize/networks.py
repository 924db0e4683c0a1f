"""Networks of timm with random weights, as ONNX: every family that the compiler promises, small but with all its operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.to_onnx import _forget_origin, _quiet


@dataclass(frozen=True)
class Family:
    """One of timm's networks.

    Attributes:
        name: timm's.
        config: what shrinks it, in quick runs.
        blocks: where its blocks are (dotted name of a module whose children are stages, themselves rows of blocks); in quick
            runs those that keep their input's shape are left out, but for the first.
        without: blocks that are left out in quick runs, by name.
        long: left out of quick runs, where another family has the same operators.
        bound: on the relative error, where it is not the usual one.
        minimum: smallest side in pixels, as its authors' padding has it.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    minimum: int = 1
    without: tuple[str, ...] = ()
    long: bool = False
    bound: float = 2e-6


CLASSES = 11
LAYERS = ("layer1", "layer2", "layer3", "layer4")
FAMILIES = (
    Family("resnet18", {"layers": (2, 1, 1, 1)}),
    Family("resnet34", {"layers": (1, 2, 1, 1)}),
    Family("resnet50", {"layers": (2, 1, 1, 1)}),
    Family("resnet18d", {"layers": (1, 1, 2, 1)}),
    Family("resnext50_32x4d", {"layers": (1, 1, 1, 1)}),
    Family("resnext26ts", blocks=("stages",), long=True),
    Family("regnetx_002", blocks=("s1", "s2", "s3", "s4"), long=True),
    Family("regnety_002", blocks=("s1", "s2", "s3", "s4")),
    Family("densenet121", {"block_config": (2, 2, 2, 2), "growth_rate": 8}, minimum=29),
    Family("vgg11_bn", minimum=224),
    Family("repvgg_a0", blocks=("stages",)),
    Family("mobilenetv3_small_050", blocks=("blocks",)),
    Family("efficientnet_b0", blocks=("blocks",)),
    Family("ghostnet_050"),
    Family("inception_v3", minimum=75, without=("Mixed_5d", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7c")),
    Family("res2net50_26w_4s", {"layers": (1, 2, 1, 1)}),
    Family("mixnet_s", blocks=("blocks",)),
    Family("convnext_atto", {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 40)}, minimum=32),
    Family("test_nfnet", long=True),
    # ONNX Runtime's own InstanceNormalization adds a whole group in float32: off by 3e-6 of float64 at 350², 2e-5 at 700².
    Family("resnet50_gn", {"layers": (1, 1, 1, 1)}, long=True, bound=1e-5),
    Family("ecaresnet26t", blocks=LAYERS, long=True),
)


def build(timm: Any, family: Family, *, whole: bool) -> nn.Module:
    """Make a network with random weights, in evaluation.

    Args:
        timm: the module.
        family: which.
        whole: as its authors made it; else small.
    """
    if family.name == "vgg11_bn" and not whole:
        widths = [8, "M", 16, "M", 24, 24, "M", 24, 24, "M", 32, 32, "M"]
        network = timm.models.vgg.VGG(widths, num_classes=CLASSES, norm_layer=nn.BatchNorm2d, mlp_ratio=0.02)
    elif family.name == "ghostnet_050" and not whole:
        rows = [
            [[3, 16, 16, 0, 1]],
            [[3, 48, 24, 0, 2]],
            [[5, 72, 40, 0.25, 2]],
            [[3, 240, 80, 0, 2], [3, 184, 80, 0, 1]],
        ]
        network = timm.models.ghostnet.GhostNet([*rows, [[5, 672, 160, 0.25, 2]]], num_classes=CLASSES, width=0.5)
    else:
        network = timm.create_model(family.name, num_classes=CLASSES, **({} if whole else family.config))
    shake(network)
    network.eval()
    if not whole:
        for name in family.blocks:
            leave_out(network, name, family.minimum)
        for name in family.without:
            setattr(network, name, nn.Identity())
    return network


def shake(network: nn.Module) -> None:
    """Give statistics and gains random values: as initialised, many a residual branch is multiplied by 0 or 1e-6."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for name, parameter in network.named_parameters():
        if parameter.ndim <= 1:
            last = name.rsplit(".", 1)[-1]
            if last == "bias":
                nn.init.normal_(parameter, 0, 0.2)
            elif last in {"weight", "gamma", "gain", "skipinit_gain"}:
                nn.init.uniform_(parameter, 0.3, 1.2)


def leave_out(network: nn.Module, stages: str, minimum: int) -> None:
    """Replace blocks that keep their input's shape by the identity, but for the first."""
    parent = network.get_submodule(stages)
    blocks = [(row, name, block) for row in (parent, *parent.children()) for name, block in row.named_children()]
    shapes: dict[nn.Module, tuple[torch.Size, torch.Size]] = {}

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and isinstance(inputs[0], Tensor):
            shapes[module] = (inputs[0].shape, output.shape)

    handles = [block.register_forward_hook(hook) for _, _, block in blocks]
    with torch.no_grad():
        network(torch.zeros(1, 3, minimum + 64, minimum + 64))
    for handle in handles:
        handle.remove()
    kept = False
    for row, name, block in blocks:
        if not isinstance(block, nn.Sequential) and block in shapes and len(list(block.children())) > 1:
            same = shapes[block][0] == shapes[block][1]
            if same and kept:
                setattr(row, name, nn.Identity())
            kept = kept or same


def to_onnx(network: nn.Module, minimum: int, outputs: tuple[str, ...] = ("logits",)) -> ir.Model:
    """Export with a dynamic batch, height and width, as export/to_onnx does for the project's own networks."""
    example = torch.randn(2, 3, minimum + 99, minimum + 134)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=20,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    _forget_origin(program.model)
    return program.model
