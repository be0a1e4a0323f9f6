"""An exported program, read back and compiled for a TPU that is not there."""

import jax
import pytest
from jax import export
from jax.experimental import topologies

from switch_jax.config import Config, DataConfig, ModelConfig, RunConfig
from switch_jax.inference import DecodingConfig
from switch_jax.serving.program import export_program

MODEL = ModelConfig(384, 128, 256, 64, 2, 2, 2, num_experts=4, sparse_step=1, group_size=256)
DATA = DataConfig("unused", {"inputs": 128, "targets": 16})


@pytest.mark.slow
@pytest.mark.parametrize("decoding", [{}, {"num_beams": 2}, {"temperature": 1.0, "top_p": 0.9}])
def test_the_program_compiles_for_a_tpu(decoding, monkeypatch):
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5p-8")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    config = Config(RunConfig("unused", 1, 4), MODEL, DATA)
    written = export_program(
        config, DecodingConfig(16, **decoding), ["cpu", "tpu"], num_ids=384, unknown_id=2
    )
    program = export.deserialize(written.exported.serialize())
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    chip = jax.sharding.SingleDeviceSharding(chips[0])

    def argument(aval):
        shape = [6 if export.is_symbolic_dim(size) else size for size in aval.shape]
        return jax.ShapeDtypeStruct(shape, aval.dtype, sharding=chip)

    arguments, _ = jax.tree.unflatten(program.in_tree, map(argument, program.in_avals))
    compiled = jax.jit(program.call).lower(*arguments).compile()
    tokens, scores = compiled.output_shardings
    assert tokens.device_set == scores.device_set == {chips[0]}
