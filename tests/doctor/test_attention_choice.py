"""GPU_ATTENTION = 'auto', with other attentions and times in the place of a GPU's."""

import functools

import jax.numpy as jnp
import pytest

from switch_jax.doctor import attention_choice
from switch_jax.doctor.attention_choice import choose_attention
from switch_jax.model.fused_attention import cudnn_attention
from tests.trainer.helpers import tiny_config, tiny_model

MESH = {"data": 2, "expert": 1, "model": 2}
# 2 layers in the encoder, and 3 in the decoder
MODEL = tiny_model(activation_dtype="bfloat16", num_experts=0, num_decoder_layers=3)
CONFIG = tiny_config(MODEL, batch_size=8, num_microbatches=2)
RIGHT = functools.partial(cudnn_attention, implementation="xla")


def _wrong_in_the_decoder(*arrays, causal, **options):
    return (1.1 if causal else 1) * RIGHT(*arrays, causal=causal, **options)


def _nan_in_cross_attention(q, k, v, bias, *segments, **options):
    return RIGHT(q, k, v, bias, *segments, **options) + (jnp.nan if bias is None else 0)


def _broken(*arrays, **options):
    raise RuntimeError("no cuDNN here\nand more")


def _seconds(xla, cudnn):
    """In the place of `seconds_of`: of encoder, decoder and cross-attention; it runs each."""
    times = iter([*xla, *cudnn])

    def seconds_of(run):
        run()
        return next(times)

    return seconds_of


def _choose(monkeypatch, cudnn, seconds=None):
    monkeypatch.setitem(attention_choice.ATTENTIONS, "cudnn", cudnn)
    monkeypatch.setattr(attention_choice, "seconds_of", seconds)
    return choose_attention(CONFIG, MESH)


@pytest.mark.parametrize(
    "xla, cudnn, chosen, line",
    [
        # 2 x 3 + 3 x 1 + 3 x 1 = 12 s, and 2 x 1 + 3 x 1 + 3 x 2 = 11 s
        ((3, 1, 1), (1, 1, 2), "cudnn", "take 11,000 ms with 'cudnn' and 12,000 ms with 'xla'"),
        ((3, 1, 1), (1, 2, 2), "xla", "take 14,000 ms with 'cudnn' and 12,000 ms with 'xla'"),
        ((1, 1, 1), (1, 1, 1), "xla", "take 8,000 ms with 'cudnn' and 8,000 ms with 'xla'"),
    ],
)
def test_right_and_faster_in_all_layers_together_is_taken(monkeypatch, xla, cudnn, chosen, line):
    attention, reason = _choose(monkeypatch, RIGHT, _seconds(xla, cudnn))
    assert attention == chosen
    assert reason.startswith(f"GPU_ATTENTION = 'auto' is '{chosen}' here: all layers, forward")
    assert line in reason


@pytest.mark.parametrize(
    "cudnn, line",
    [
        (_wrong_in_the_decoder, "cuDNN's attention is wrong (decoder): it differs by 1"),
        (_nan_in_cross_attention, "is wrong (cross-attention): it differs by nan from"),
        (_broken, "cuDNN's attention fails (encoder): RuntimeError: no cuDNN here"),
    ],
)
def test_wrong_is_a_warning_and_is_not_timed(monkeypatch, cudnn, line):
    attention, reason = _choose(monkeypatch, cudnn)
    assert attention == "xla"
    assert reason.startswith("warning: GPU_ATTENTION = 'auto' is 'xla' here: cuDNN's")
    assert line in reason


def test_the_worst_of_all_processes_counts(monkeypatch):
    def on_two_processes(value):
        """The other one is wrong by as much more, and takes as much longer."""
        return [value, [2 * value[0], ""] if isinstance(value, tuple) else value + elsewhere.pop(0)]

    monkeypatch.setattr(attention_choice, "gather", on_two_processes)
    elsewhere = [0, 5]
    attention, reason = _choose(monkeypatch, RIGHT, _seconds((3, 1, 1), (1, 1, 2)))
    assert attention == "xla"
    assert "take 16,000 ms with 'cudnn' and 12,000 ms with 'xla'" in reason
    monkeypatch.setattr(attention_choice, "_difference", lambda *arguments: (0.012, ""))
    assert "is wrong (encoder): it differs by 2.4e-02" in _choose(monkeypatch, RIGHT).reason


def test_the_shapes_are_those_of_a_device(monkeypatch):
    """8 rows in 2 microbatches on 2 devices, and 1 of 2 heads of 8."""
    seen = {}

    def attend(q, k, v, bias, *segments, num_heads, causal):
        seen[q.shape, k.shape, bias is not None, causal, num_heads, q.dtype] = True
        return RIGHT(q, k, v, bias, *segments, num_heads=num_heads, causal=causal)

    _choose(monkeypatch, attend, lambda run: 1)
    assert list(seen) == [
        ((2, 16, 8), (2, 16, 8), True, False, 1, jnp.bfloat16),
        ((2, 8, 8), (2, 8, 8), True, True, 1, jnp.bfloat16),
        ((2, 8, 8), (2, 16, 8), False, False, 1, jnp.bfloat16),
    ]


@pytest.mark.parametrize(
    "model, why",
    [
        (tiny_model(), "cuDNN has no attention of these lengths"),  # float32
        (tiny_model(activation_dtype="bfloat16", dropout_rate=0.1), "not used with dropout"),
    ],
)
def test_what_cudnn_cannot_do_is_not_measured(monkeypatch, model, why):
    monkeypatch.setattr(attention_choice, "_difference", None)
    attention, reason = choose_attention(tiny_config(model), MESH)
    assert attention == "xla"
    assert why in reason
