"""FLOPs of printed convolutions, by hand."""

import pytest

from switch_jax.planning import hlo_flops

SPATIAL = "window={size=1}, dim_labels=0bf_io0->0bf"
SUMMED = "window={size=16}, dim_labels=0fb_0io->0bf"
FFN = 16 * 512 * 768 * 3072
# A window of 8 over 8 inputs: output position o meets the inputs o - 7 to o, or padding.
PADDED = "window={size=8 pad=7_7 rhs_reversal=1}, dim_labels=0bf_0io->0bf"
# A batched product. Each window meets one input: of the positions o * 7 + k - 7 one for each o is a
# multiple of 8 from 0 to 56.
DIAGONAL = "window={size=8 stride=7 pad=7_7 lhs_dilate=8}, dim_labels=0bf_0io->0bf"


@pytest.mark.parametrize(
    ("left", "right", "out", "rest", "products"),
    [
        # [16 x 512, 768] x [768, 3072], the sequences as a spatial dimension.
        ("16,512,768", "768,3072,1", "16,512,3072", SPATIAL, FFN),
        # A gradient of weights: sequences are a window that is summed over.
        ("16,512,768", "16,512,3072", "1,768,3072", SUMMED, FFN),
        ("8,100,64", "8,64,32", "8,100,32", PADDED, sum(range(1, 9)) * 100 * 64 * 32),
        ("8,100,64", "8,64,32", "8,100,32", DIAGONAL, 8 * 100 * 64 * 32),
    ],
)
def test_products_by_hand(left, right, out, rest, products):
    computation = [
        f"  %l = bf16[{left}]{{0}} parameter(0)",
        f"  %r = bf16[{right}]{{0}} parameter(1)",
        f"  ROOT %c = bf16[{out}]{{0}} convolution(%l, %r), {rest}",
    ]
    assert hlo_flops.flops(computation[-1], computation, {}) == 2 * products
