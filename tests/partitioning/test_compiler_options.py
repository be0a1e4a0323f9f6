from types import SimpleNamespace

import pytest

from switch_jax.partitioning import compiler_options


@pytest.fixture
def on_a_tpu(monkeypatch):
    monkeypatch.setattr(compiler_options, "platform", lambda: "tpu")
    monkeypatch.setattr(compiler_options, "has_async_all_to_all", lambda: True)
    monkeypatch.setattr(compiler_options, "gathers_within_products", lambda: True)
    info = SimpleNamespace(vmem_capacity_bytes=128 * 2**20)
    monkeypatch.setattr(compiler_options.pltpu, "get_tpu_info", lambda: info)


@pytest.mark.parametrize("split", [False, True])
def test_all_to_alls_are_split_where_the_compiler_can_do_that(monkeypatch, on_a_tpu, split):
    monkeypatch.setattr(compiler_options, "has_async_all_to_all", lambda: split)
    options = compiler_options.compiler_options()
    assert options.get("xla_tpu_enable_async_all_to_all", False) is split


def test_split_weights_are_gathered_within_products(on_a_tpu):
    whole = compiler_options.compiler_options()
    split = compiler_options.compiler_options(fully_sharded_weights=True)
    assert whole.items() < split.items()
    assert "xla_tpu_enable_async_collective_fusion_fuse_all_gather" in split.keys() - whole.keys()


def test_no_gathers_within_products_where_the_compiler_refuses_them(monkeypatch, on_a_tpu):
    monkeypatch.setattr(compiler_options, "gathers_within_products", lambda: False)
    whole = compiler_options.compiler_options()
    assert compiler_options.compiler_options(fully_sharded_weights=True) == whole


def test_other_platforms_have_no_options_of_a_tpu():
    assert compiler_options.compiler_options(fully_sharded_weights=True) == {}
