"""FLOPs of the matrix products in optimised HLO, which calls them convolutions."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from switch_jax.planning.hlo_text import require_match

_SHAPE = re.compile(r"^\s+(?:ROOT )?%([\w.<>\-]+) = \w+\[([\d,]*)\]")
_CALLS = re.compile(r"\bcalls=%?([\w.<>\-]+)")


def flops(line: str, inside: Sequence[str], computations: Mapping[str, Sequence[str]]) -> int:
    """FLOPs of one operation, those of what is fused into it included; 0 if it has no product.

    Elementwise arithmetic is left out: it runs on other units. A kernel counts what its author
    said that it computes.

    Args:
      line: the operation, as printed.
      inside: the lines of its computation, which hold the shapes of its operands.
      computations: lines by name.
    """
    if " fusion(" in line:
        called = _CALLS.search(line)
        body = computations[called.group(1)] if called else ()
        return sum(flops(other, body, computations) for other in body)
    if " custom-call(" in line:
        estimate = re.search(r'"cost_estimate":\{"flops":"(\d+)"', line)
        return int(estimate.group(1)) if estimate else 0
    if " convolution(" in line:
        shapes = {m.group(1): _sizes(m.group(2)) for m in map(_SHAPE.match, inside) if m}
        return _convolution(line, shapes)
    return 0


def _convolution(line: str, shapes: Mapping[str, list[int]]) -> int:
    result = _sizes(require_match(_SHAPE, line).group(2))
    operands = require_match(r" convolution\(%([\w.<>\-]+), %([\w.<>\-]+)\)", line)
    left, right = (shapes[name] for name in operands.groups())
    labels = require_match(r"dim_labels=(\w+)_(\w+)->(\w+)", line).groups()
    size = dict(zip(labels[0], left, strict=True))
    kernel = dict(zip(labels[1], right, strict=True))
    output = dict(zip(labels[2], result, strict=True))
    window = _window(line)
    products = output["b"] * output["f"] * kernel["i"]
    for dimension in (d for d in labels[2] if d.isdigit()):
        products *= _pairs(
            size[dimension], kernel[dimension], output[dimension],
            {name: values[int(dimension)] for name, values in window.items()},
        )  # fmt: skip
    return 2 * products


def _pairs(size: int, kernel: int, output: int, window: Mapping[str, str]) -> int:
    """Pairs of an output and a kernel position that meet an element, and not padding, of the input.

    A batched matrix product is printed as a convolution that pads all but the diagonal.
    """
    low = int(window.get("pad", "0_0").split("_")[0])
    stride, spread, dilation = (
        int(window.get(name, "1")) for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    at = np.arange(output)[:, None] * stride + np.arange(kernel)[None] * dilation - low
    return int(((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)).sum())


def _window(line: str) -> dict[str, list[str]]:
    """From 'window={size=1x16 pad=0_0x15_15}' to values by name and dimension."""
    found = re.search(r"window=\{([^}]*)\}", line)
    fields = (field.split("=") for field in (found.group(1).split() if found else ()))
    return {name: values.split("x") for name, values in fields}


def _sizes(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]
