"""The checks of kernels: with those of TPUs, interpreted, with wrong ones, and compiled."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor import kernels
from switch_jax.doctor.checks import Verdict, run_checks
from switch_jax.doctor.compare import mesh_of
from switch_jax.doctor.kernels import CASES, TOLERANCES, AttentionCase, kernel_checks
from switch_jax.doctor.steps import config_of
from switch_jax.hardware import parse_slice
from switch_jax.kernels.attention_kernel import fused_attention
from switch_jax.model.fused_attention import cudnn_attention, on_mesh
from switch_jax.moe import assign
from switch_jax.partitioning.mesh import make_mesh, replicated
from switch_jax.planning import compiler

INTERPRETED = functools.partial(fused_attention, interpret=True)
SMALL = (
    AttentionCase("encoder", 24, 24, causal=False, has_bias=True),
    AttentionCase("cross-attention", 10, 140, causal=False, has_bias=False),
)


@pytest.fixture
def mesh():
    """Two devices."""
    return make_mesh(MeshConfig(1, 2, 1), jax.devices()[:2])


def attention_found(kernel, mesh, monkeypatch):
    """What the checks of attention find where devices have this kernel."""
    monkeypatch.setattr(kernels, "CASES", SMALL)
    monkeypatch.setattr(kernels, "fused_kernel", kernel)
    return list(run_checks(c for c in kernel_checks(mesh) if c.name.startswith("attention")))


def test_kernels_pass_in_both_dtypes(mesh, monkeypatch):
    found = attention_found(lambda *_: INTERPRETED, mesh, monkeypatch)
    assert [f.verdict for f in found] == [Verdict.OK] * 4, found
    assert [f.name for f in found[:2]] == [
        "attention, encoder, float32",
        "attention, encoder, bfloat16",
    ]
    assert found[0].numbers["difference"] < 1e-5 < found[1].numbers["difference"]


def test_cudnn_passes_in_the_dtype_that_it_has(mesh, monkeypatch):
    """Its arithmetic by XLA: with the bias in bfloat16, and queries that see no key."""
    kernel = functools.partial(cudnn_attention, implementation="xla")

    def of(model, q, *_):
        return kernel if model.gpu_attention == "cudnn" and q.dtype == jnp.bfloat16 else None

    found = attention_found(of, mesh, monkeypatch)
    assert [(f.name.split()[-1], f.verdict) for f in found] == [("bfloat16", Verdict.OK)] * 2


def wrong_forward(*arrays, **options):
    return INTERPRETED(*arrays, **options) * 1.03


@jax.custom_vjp
def _wrong_gradient(x):
    return x


_wrong_gradient.defvjp(lambda x: (x, None), lambda _, dy: (dy.at[0, 0].multiply(1.5),))


def wrong_backward(q, *arrays, **options):
    return INTERPRETED(_wrong_gradient(q), *arrays, **options)


def wrong_at_nan(*arrays, **options):
    return INTERPRETED(*arrays, **options).at[0, 0, 0].set(jnp.nan)


@pytest.mark.parametrize("kernel", [wrong_forward, wrong_backward, wrong_at_nan])
def test_a_wrong_kernel_is_reported_in_words(kernel, mesh, monkeypatch):
    monkeypatch.setattr(kernels, "TOLERANCES", {"float32": TOLERANCES["float32"]})
    (found,) = attention_found(
        lambda _, q, k, has_bias: kernel if has_bias else None, mesh, monkeypatch
    )
    assert found.verdict == Verdict.FAILED
    assert "from XLA's attention in float32, 2e-04 is allowed; this kernel computes wrong" in str(
        found
    )
    apart = found.numbers["difference"]
    assert apart is None if kernel is wrong_at_nan else apart > 0.01


def test_devices_without_kernels_have_one_line(mesh):
    attention, routing = run_checks(kernel_checks(mesh))
    assert str(attention).startswith("skipped  attention: these devices have no kernel for it")
    assert routing.verdict == Verdict.OK


def wrong_gate(logits, *args):
    a = assign(logits, *args)
    return a._replace(gate=a.gate * 1.001)


def wrong_expert(logits, *args):
    a = assign(logits, *args)
    return a._replace(expert_index=a.expert_index.at[0, 0, 5].add(1))


@pytest.mark.parametrize(("route", "difference"), [(wrong_gate, "1.0e-03"), (wrong_expert, "inf")])
def test_wrong_routing_is_reported_in_words(route, difference, mesh, monkeypatch):
    monkeypatch.setattr(kernels, "assign", route)
    found = kernels._routing(mesh)
    assert f"differs by {difference} from sorting in XLA's operations" in str(found)
    assert "do not train on this machine" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_tpus_have_the_kernels_and_compile_the_programs(case, dtype):
    pytest.importorskip("libtpu")
    tpus = mesh_of(compiler.devices(parse_slice("v5e-4")))
    model = dataclasses.replace(config_of(tpus, "float32").model, gpu_attention="cudnn")
    kernel = kernels.kernel_of(model, case, dtype, tpus)
    assert kernel is fused_attention
    arguments = kernels.arguments_of(model, case, dtype, tpus.size)
    program = kernels.attention_program(on_mesh(kernel), model.num_heads, case.causal)
    with jax.set_mesh(tpus):
        compiled = jax.jit(program, out_shardings=replicated(tpus)).lower(*arguments).compile()
    assert compiled.as_text().count("tpu_custom_call") >= 2  # forward and backward


@pytest.mark.slow
def test_tpus_compile_the_routing():
    pytest.importorskip("libtpu")
    one = mesh_of(compiler.devices(parse_slice("v5e-1")))
    logits = jax.ShapeDtypeStruct((2, 1024, 16), jnp.float32)
    weights = jax.ShapeDtypeStruct((2, 1, 1024), jnp.float32)
    program = kernels.routing_program(lambda x: assign(x, 80))
    with jax.set_mesh(one):
        compiled = jax.jit(program, out_shardings=replicated(one)).lower(logits, weights).compile()
    assert compiled.as_text().count("tpu_custom_call") >= 2
