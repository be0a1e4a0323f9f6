from types import SimpleNamespace

import pytest

from switch_jax.partitioning import compiler_options


@pytest.mark.parametrize("split", [False, True])
def test_all_to_alls_are_split_where_the_compiler_can_do_that(monkeypatch, split):
    monkeypatch.setattr(compiler_options, "platform", lambda: "tpu")
    monkeypatch.setattr(compiler_options, "has_async_all_to_all", lambda: split)
    info = SimpleNamespace(vmem_capacity_bytes=128 * 2**20)
    monkeypatch.setattr(compiler_options.pltpu, "get_tpu_info", lambda: info)
    options = compiler_options.compiler_options()
    assert options.get("xla_tpu_enable_async_all_to_all", False) is split
