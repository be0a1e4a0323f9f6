import pytest

from switch_jax.planning import hlo_flops


def _line(left, right, out, rest):
    inside = [
        f"  %l = bf16[{left}]{{0}} parameter(0)",
        f"  %r = bf16[{right}]{{0}} parameter(1)",
        f"  ROOT %c = bf16[{out}]{{0}} convolution(%l, %r), {rest}",
    ]
    return inside[-1], inside


@pytest.mark.parametrize(
    ("left", "right", "out", "rest", "products"),
    [
        # [16 x 512, 768] x [768, 3072], the sequences as a spatial dimension.
        ("16,512,768", "768,3072,1", "16,512,3072", "window={size=1}, dim_labels=0bf_io0->0bf",
         16 * 512 * 768 * 3072),
        # A gradient of weights: sequences are a window that is summed over.
        ("16,512,768", "16,512,3072", "1,768,3072", "window={size=16}, dim_labels=0fb_0io->0bf",
         16 * 512 * 768 * 3072),
        # A batched product: a window that meets one sequence at each place, and padding else.
        ("8,100,64", "8,64,32", "8,100,32",
         "window={size=8 pad=7_7 rhs_reversal=1}, dim_labels=0bf_0io->0bf", None),
        ("128,64", "64,32", "128,32", "dim_labels=bf_io->bf", 128 * 64 * 32),
    ],
)  # fmt: skip
def test_products_by_hand(left, right, out, rest, products):
    line, inside = _line(left, right, out, rest)
    if products is None:  # output has 8 places: place o meets inputs o - 7 .. o + 0 of 8
        products = sum(o + 1 for o in range(8)) * 100 * 64 * 32
    assert hlo_flops.flops(line, inside, {}) == 2 * products


def test_a_strided_batch_product_counts_the_diagonal_only():
    # lhs_dilate spreads the inputs so far apart that each window position meets one of them.
    line, inside = _line(
        "8,100,64", "8,64,32", "8,100,32",
        "window={size=8 stride=7 pad=7_7 lhs_dilate=8}, dim_labels=0bf_0io->0bf",
    )  # fmt: skip
    # positions o * 7 + k - 7 that are a multiple of 8 in 0 .. 56: one for each o.
    assert hlo_flops.flops(line, inside, {}) == 2 * 8 * 100 * 64 * 32


def test_elementwise_work_is_no_product():
    assert hlo_flops.flops("  %a = f32[8]{0} add(%b, %c)", [], {}) == 0
