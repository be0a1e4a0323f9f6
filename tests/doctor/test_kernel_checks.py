"""The checks of kernels: with those of TPUs, interpreted, and with wrong ones."""

import functools

import jax
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor import kernel_checks
from switch_jax.doctor.checks import Failed, Skipped
from switch_jax.doctor.kernel_checks import Case
from switch_jax.kernels.attention_kernel import fused_attention
from switch_jax.model.fused_attention import cudnn_attention
from switch_jax.moe import assign
from switch_jax.partitioning.mesh import make_mesh

INTERPRETED = functools.partial(fused_attention, interpret=True)
SMALL = {
    "self-attention": Case(24, 24, False, True),
    "causal self-attention": Case(24, 24, True, True),
    "cross-attention": Case(10, 140, False, False),
    "long causal self-attention with grouped heads": Case(24, 24, True, False, 2),
}


@pytest.fixture
def mesh():
    """Two devices."""
    return make_mesh(MeshConfig(1, 2, 1), jax.devices()[:2])


@pytest.fixture
def attention(mesh, monkeypatch):
    """attention(dtype, kernel): the check, where devices have this kernel; None: they have none."""
    assert set(SMALL) == set(kernel_checks.CASES)
    monkeypatch.setattr(kernel_checks, "CASES", SMALL)

    def check(dtype, kernel):
        monkeypatch.setattr(kernel_checks, "fused_kernel", lambda *_: kernel)
        return kernel_checks.attention(mesh, dtype)

    return check


def test_kernels_pass_in_both_dtypes(attention):
    found = attention("float32", INTERPRETED)
    assert found.startswith("self-attention differs by ")
    assert "; cross-attention differs by " in found and found.endswith("2e-04 is allowed")
    # cuDNN's arithmetic by XLA has the bias in bfloat16, and queries that see no key.
    for kernel in (INTERPRETED, functools.partial(cudnn_attention, implementation="xla")):
        assert "2e-02 is allowed" in attention("bfloat16", kernel)


def wrong_forward(*arrays, **options):
    return INTERPRETED(*arrays, **options) * 1.03


@jax.custom_vjp
def _wrong_gradient(x):
    return x


_wrong_gradient.defvjp(lambda x: (x, None), lambda _, dy: (dy.at[0, 0].multiply(1.5),))


def wrong_backward(q, *arrays, **options):
    return INTERPRETED(_wrong_gradient(q), *arrays, **options)


@pytest.mark.parametrize(
    ("kernel", "dtype"), [(wrong_forward, "bfloat16"), (wrong_backward, "float32")]
)
def test_a_wrong_kernel_fails_with_its_numbers(kernel, dtype, attention):
    with pytest.raises(Failed, match=r"self-attention differs by .* from XLA's in float32, 2e-0"):
        attention(dtype, kernel)


def test_devices_without_kernels_are_skipped(attention):
    with pytest.raises(Skipped, match="these devices have no kernel for it"):
        attention("float32", None)


def wrong_gate(logits, *args):
    a = assign(logits, *args)
    return a._replace(gate=a.gate * 1.001)


def wrong_expert(logits, *args):
    a = assign(logits, *args)
    return a._replace(expert_index=a.expert_index.at[0, 0, 5].add(1))


def test_routing_passes_and_wrong_routing_fails(mesh, monkeypatch):
    assert "from sorting in XLA's operations, 1e-05 is allowed" in kernel_checks.routing(mesh)
    for route, problem in ((wrong_gate, "differs by 1.0e-03"), (wrong_expert, "go to other expe")):
        monkeypatch.setattr(kernel_checks, "assign", route)
        with pytest.raises(Failed, match=problem):
            kernel_checks.routing(mesh)
