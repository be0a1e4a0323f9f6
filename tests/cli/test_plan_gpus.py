"""`switch_jax plan` for NVIDIA GPUs; the last tests compile, with jax's CUDA plugin and no GPU."""

import importlib.util
import json
import re

import pytest

from switch_jax.cli import main
from switch_jax.gpus import has_cuda_plugin
from switch_jax.model.groups import Groups
from switch_jax.planning import gpu_compiler, gpu_plan
from tests.cli.test_plan import GIB, SWITCH, TINY, _refused

H100 = [*TINY, "--topology=h100-4", "--mesh=1,4,1"]


@pytest.fixture
def planned(monkeypatch):
    """Replaces `make_gpu_plan`: a step takes 80 GiB, with cuDNN's attention 70."""
    made = []

    def make_gpu_plan(config, cluster, measured=None):
        made.append(config)
        fused = config.model.gpu_attention == "cudnn"
        temporaries = (70 if fused else 80) * GIB - 1000
        return gpu_plan.GpuPlan(
            hardware=cluster,
            mesh=(1, 4, 1),
            parameters=5_688_960,
            parameter_bytes=22_755_840,
            optimizer_bytes=224_056,
            teacher_bytes=0,
            hbm_bytes=temporaries + 1000,
            hbm_limit_bytes=int(gpu_plan.USABLE * cluster.gpu.memory_bytes),
            memory=gpu_compiler.GpuMemory(1000, 2000, 2000, temporaries, 0, 12 * fused, 7.0),
            compile_seconds=7.0,
            model_flops=3.956e12,
            tokens=40_000,
            train_steps=100,
            groups={"encoder": Groups(8192, 80, 1.25, 0.0013)},
        )

    monkeypatch.setattr(gpu_plan, "make_gpu_plan", make_gpu_plan)
    return made


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--topology=h100"], "no GPUs 'h100'; known are a100-1, h100-1, h200-1 up to h100-8192"),
        (["--topology=h100-12"], "a server has 8 GPUs; write 1 to 8, or a multiple of 8"),
        (["--topology=h100-8", "--search"], "leave out --search and --picture, which are for TPUs"),
        (["--topology=h100-8", "--picture=plan.png"], "leave out --search and --picture"),
        (["--topology=h100-8", "--mesh=1,4,1"], "1 x 4 x 1 = 4, but h100-8 has 8 devices"),
        (["--gin.GPU_ATTENTION=fused", "--topology=h100-8"], "'fused' .* one of xla, cudnn"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, message, capsys, planned):
    assert re.search(message, _refused(capsys, *SWITCH, *arguments))
    assert not planned


def test_the_table(capsys, planned):
    assert main(["plan", *H100, "--gin.GPU_ATTENTION=cudnn"]) == 0
    table = capsys.readouterr().out
    for line in (
        r"GPUs +4 x NVIDIA H100 80GB HBM3, 79.1 GiB each\n",
        r"mesh +data 1 x expert 4 x model 1\n",
        r"memory of a GPU +70.0 GiB of 75.2 GiB: it fits\n",
        r"temporaries +70.0 GiB\n  program +0.0 KiB\n +set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95",
        r"attention +12 calls of cuDNN, without the memory that they work in\n",
        r"a step takes at least +1.0 ms, at the GPUs' peak\n",  # 3.956e12 / 4 / 989e12
    ):
        assert re.search(line, table), line


def test_cudnns_attention_is_the_first_change_that_is_tried(capsys, planned):
    assert main(["plan", *H100, "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    assert result["hbm_bytes_per_chip"] == 80 * GIB and not result["fits"]
    assert result["nearest_change"] == "--gin.GPU_ATTENTION=cudnn (70.0 GiB a chip)"


@pytest.mark.parametrize(
    "change", ["DROPOUT_RATE=0.1", "REMAT_POLICY=minimal", "ACTIVATION_DTYPE=float32"]
)
def test_where_cudnn_would_save_nothing_it_is_not_tried(change, capsys, planned):
    assert main(["plan", *H100, f"--gin.{change}"]) == 3
    assert {config.model.gpu_attention for config in planned} == {"xla"}


def test_without_the_plugin_the_message_names_the_extra(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = _refused(capsys, *H100)
    assert re.search(r"CUDA plugin.*not installed: .*pip install 'switch_jax\[cuda\]'", line)


@pytest.mark.slow
@pytest.mark.parametrize("attention, calls", [("xla", 0), ("cudnn", 2 * 3 * 2)])
def test_a_switch_model_compiled_for_four_gpus(attention, calls, capsys):
    """Encoder, decoder and cross-attention of two layers each, forward and backward."""
    if not has_cuda_plugin():
        pytest.skip("jax's CUDA plugin is not installed")
    assert main(["plan", *H100, "--json", f"--gin.GPU_ATTENTION={attention}"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cudnn_calls"] == calls
    # Each GPU holds a quarter of the experts, and a quarter of the batch's rows.
    assert result["parameter_bytes"] / 4 < result["hbm_arguments_bytes"] < result["parameter_bytes"]
    # At least the logits of its 16 rows of 114 targets.
    assert 4 * 16 * 114 * 32128 < result["hbm_temporaries_bytes"] < 4 * GIB
