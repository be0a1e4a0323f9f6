"""Counts the FLOPs of matrix products in optimised HLO, which prints them as convolutions."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

_SHAPE = re.compile(r"^\s+(?:ROOT )?%([\w.<>\-]+) = \w+\[([\d,]*)\]")
_CALLS = re.compile(r"\bcalls=%?([\w.<>\-]+)")


def flops(line: str, computation: Sequence[str], computations: Mapping[str, Sequence[str]]) -> int:
    """Counts the FLOPs of a printed operation and of all fused into it.

    Elementwise arithmetic is not counted: it does not use the matrix units. A kernel counts with
    the cost estimate that its author gave. `computation` has the lines around this one, with the
    operands' shapes; `computations` has those of all computations, by name.
    """
    if " fusion(" in line:
        called = _CALLS.search(line)
        body = computations[called.group(1)] if called else ()
        return sum(flops(inner, body, computations) for inner in body)
    if " custom-call(" in line:
        estimate = re.search(r'"cost_estimate":\{"flops":"(\d+)"', line)
        return int(estimate.group(1)) if estimate else 0
    if " convolution(" in line:
        shapes = {m.group(1): _dimensions(m.group(2)) for m in map(_SHAPE.match, computation) if m}
        return _convolution_flops(line, shapes)
    return 0


def _convolution_flops(line: str, shapes: Mapping[str, list[int]]) -> int:
    output_shape = _dimensions(require_match(_SHAPE, line).group(2))
    operands = require_match(r" convolution\(%([\w.<>\-]+), %([\w.<>\-]+)\)", line)
    input_shape, kernel_shape = (shapes[name] for name in operands.groups())
    labels = require_match(r"dim_labels=(\w+)_(\w+)->(\w+)", line).groups()
    input_sizes = dict(zip(labels[0], input_shape, strict=True))
    kernel_sizes = dict(zip(labels[1], kernel_shape, strict=True))
    output_sizes = dict(zip(labels[2], output_shape, strict=True))
    window = _window(line)
    products = output_sizes["b"] * output_sizes["f"] * kernel_sizes["i"]
    for dimension in filter(str.isdigit, labels[2]):  # the spatial dimensions
        products *= _num_products(
            input_sizes[dimension],
            kernel_sizes[dimension],
            output_sizes[dimension],
            {name: values[int(dimension)] for name, values in window.items()},
        )
    return 2 * products


def _num_products(
    input_size: int, kernel_size: int, output_size: int, window: Mapping[str, str]
) -> int:
    """Counts pairs of output and kernel positions that meet an input element, not padding.

    A batched matrix product is printed as a convolution whose window meets padding everywhere but
    on the diagonal.
    """
    low = int(window.get("pad", "0_0").split("_")[0])
    stride, input_dilation, kernel_dilation = (
        int(window.get(name, "1")) for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    outputs, kernels = np.arange(output_size)[:, None], np.arange(kernel_size)[None]
    position = outputs * stride + kernels * kernel_dilation - low  # in the dilated input
    is_inside = (position >= 0) & (position <= (input_size - 1) * input_dilation)
    return int((is_inside & (position % input_dilation == 0)).sum())


def _window(line: str) -> dict[str, list[str]]:
    """Reads 'window={size=1x16 pad=0_0x15_15}' into the values of each dimension, by name."""
    window = re.search(r"window=\{([^}]*)\}", line)
    fields = (field.split("=") for field in (window.group(1).split() if window else ()))
    return {name: values.split("x") for name, values in fields}


def _dimensions(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def require_match(pattern: str | re.Pattern[str], text: str) -> re.Match[str]:
    """Returns the first match; ValueError if this compiler prints programs in another form."""
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the compiled program has a line that cannot be read: {text[:1000]}")
    return match
