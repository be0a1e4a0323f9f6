"""Which layers of a stack have experts, and the blocks of layers that follow from it."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

from switch_jax.utils.errors import FieldError


class Blocks(NamedTuple):
    """Equal blocks of a stack that follow each other; the stack scans over them.

    Attributes:
      name: of their parameters in the stack: 'blocks', and 'blocks_1' and so on behind them.
      first_layer: its number in the stack, counted from 0.
      has_experts: whether the last layer of each has experts. The others are dense.
    """

    name: str
    first_layer: int
    num_blocks: int
    layers_per_block: int
    has_experts: bool

    def layers_at(self, place: int) -> range:
        """The numbers, in the stack, of the layers at one place of each block."""
        first = self.first_layer + place
        return range(first, first + self.num_blocks * self.layers_per_block, self.layers_per_block)


def _mixed(num_layers: int, num_sparse: int) -> range:
    if not num_sparse:
        return range(0)
    step = num_layers // num_sparse
    return range(step - 1, step * num_sparse, step)


def _from(first: int, num_sparse: int) -> range:
    return range(first, first + num_sparse)


# From the number of layers and that of layers with experts; see `sparse_layers`.
LAYOUTS: dict[str, Callable[[int, int], range]] = {
    "mixed": _mixed,
    "bottom": lambda _, sparse: _from(0, sparse),
    "middle": lambda layers, sparse: _from((layers - sparse + 1) // 2, sparse),
    "top": lambda layers, sparse: _from(layers - sparse, sparse),
}


def sparse_layers(layout: str, num_layers: int, num_sparse: int) -> list[int]:
    """The layers with experts, counted from 0, by layouts as in flaxformer's `LayerLayout`.

    'mixed': the last of each `num_layers / num_sparse` layers, which is a whole number; 'bottom':
    the first ones; 'top': the last ones; 'middle': those between, with one dense layer more in
    front than behind where the number of dense layers is odd.
    """
    return list(LAYOUTS[layout](num_layers, num_sparse))


def in_blocks(num_layers: int, sparse: list[int]) -> list[Blocks]:
    """The blocks of a stack in their order; `sparse` are the layers with experts.

    Where every n-th layer has experts, all blocks are equal: n - 1 dense layers, and a sparse one.
    Otherwise a block is a layer, and runs of dense and of sparse layers follow each other.
    """
    step = num_layers // len(sparse) if sparse else 1
    if not sparse or sparse == list(range(step - 1, num_layers, step)):
        return [Blocks("blocks", 0, num_layers // step, step, bool(sparse))]
    runs = [list(run) for _, run in itertools.groupby(range(num_layers), sparse.__contains__)]
    return [
        Blocks(f"blocks_{i}" if i else "blocks", run[0], len(run), 1, run[0] in sparse)
        for i, run in enumerate(runs)
    ]


def check_sparse_layers(
    stack: str, num_layers: int, layout: str, num_sparse: int | None, sparse_step: int
) -> None:
    """Raises FieldError where a stack has no such layers; arguments as in `ModelConfig`."""
    name = f"num_{stack}_sparse_layers"
    if num_sparse is None:
        if num_layers % sparse_step:
            raise FieldError(
                "sparse_step",
                f"= {sparse_step} does not divide the {num_layers} layers of the {stack} "
                f"({num_layers} % {sparse_step} = {num_layers % sparse_step})",
            )
    elif num_sparse > num_layers:
        raise FieldError(name, f"= {num_sparse}, and the {stack} has {num_layers} layers")
    elif layout == "mixed" and num_sparse and num_layers % num_sparse:
        raise FieldError(
            name,
            f"= {num_sparse} does not divide the {num_layers} layers of the {stack} ({num_layers} "
            f"% {num_sparse} = {num_layers % num_sparse}), over which "
            f"{stack.upper()}_SPARSE_LAYOUT = 'mixed' spreads them evenly",
        )
