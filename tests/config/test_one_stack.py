"""A model without layers of an encoder: one causal stack, and the settings that go with it."""

import dataclasses

import pytest

from switch_jax.config import Config, DataConfig, DistillationConfig, RunConfig
from switch_jax.model.flops import described, forward_flops, parameter_count, training_flops
from switch_jax.utils.errors import FieldError, UserError
from tests.trainer.helpers import tiny_model

ALONE = tiny_model(num_encoder_layers=0)
BOTH = tiny_model()
RUN = RunConfig("run", 10, 8)


def config_of(model, lengths, **parts):
    return Config(RUN, model, DataConfig("task", lengths), **parts)


def test_it_is_causal_reads_inputs_and_targets_and_attends_to_nothing():
    (stack,) = ALONE.stacks
    assert (stack.name, stack.features) == ("decoder", ("inputs", "targets"))
    assert stack.causal and stack.attends_to is None and stack.sparse_layers == (1,)
    encoder, decoder = BOTH.stacks
    assert (encoder.features, decoder.features) == (("inputs",), ("targets",))
    assert decoder.attends_to == "encoder"


@pytest.mark.parametrize("lengths", [{"targets": 24}, {"inputs": 16, "targets": 8}])
def test_a_row_has_the_tokens_of_both(lengths):
    (stack,), config = ALONE.stacks, config_of(ALONE, lengths)
    assert stack.length(lengths) == 24
    assert config.tokens_per_step == config.tokens_read(1) == 8 * 24
    # 2 layers, one with experts; D = 16, H * K = 16, F = 32, 4 experts, 64 ids; L = 24.
    attention, feed_forward, router, logits = 4 * 16 * 16, 2 * 16 * 32, 16 * 4, 16 * 64
    met = 2 * (attention + feed_forward)
    pairs = 2 * 24 * 24
    assert forward_flops(ALONE, lengths) == 2 * 24 * (met + logits) + 2 * 16 * pairs
    needed = 24 * (met + router + logits) + 2 * 16 * pairs
    assert training_flops(ALONE, lengths, {"decoder": 1.0}) == 6 * needed


def test_what_it_is_called():
    count = 64 * 16 + 32 * 2 + 5 * 16 + 2 * 4 * 16 * 16 + 2 * 16 * 32 * 5 + 16 * 4
    assert parameter_count(ALONE) == count
    assert described(ALONE) == f"Switch language model, 4 experts, {count:,} parameters"
    assert described(dataclasses.replace(ALONE, num_experts=0)).startswith("dense language model, ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"encoder_router_type": "experts_choose"},
            "encoder_router_type = 'experts_choose' does not go with NUM_ENCODER_LAYERS = 0",
        ),
        (
            {"num_encoder_sparse_layers": 1},
            "num_encoder_sparse_layers = 1 does not go with NUM_ENCODER_LAYERS = 0",
        ),
        (
            {"encoder_sparse_layout": "top"},
            "encoder_sparse_layout = 'top' does not go with NUM_ENCODER_LAYERS = 0",
        ),
        ({"num_decoder_layers": 0}, "num_decoder_layers = 0: it must be at least 1"),
        ({"num_decoder_layers": 3}, "sparse_step = 2 does not divide the 3 layers of the decoder"),
        ({"num_decoder_sparse_layers": 0}, "leave no layer for them"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused(changes, message):
    with pytest.raises(FieldError, match=message):
        tiny_model(num_encoder_layers=0, **changes)


def test_its_group_size_is_that_of_the_model():
    (stack,) = ALONE.stacks
    assert (stack.group_size, stack.group_size_macro) == (32, "GROUP_SIZE")
    (stack,) = tiny_model(num_encoder_layers=0, decoder_group_size=8).stacks
    assert (stack.group_size, stack.group_size_macro) == (8, "DECODER_GROUP_SIZE")


def test_an_encoder_needs_a_length_of_inputs():
    message = "task_feature_lengths = {'targets': 8}: the encoder reads 'inputs'"
    with pytest.raises(FieldError, match=message):
        config_of(BOTH, {"targets": 8})


@pytest.mark.parametrize(("teacher", "student"), [(BOTH, ALONE), (ALONE, BOTH)])
def test_a_teacher_with_other_stacks_is_refused(teacher, student):
    lengths = {"inputs": 16, "targets": 8}
    distillation = DistillationConfig("runs/teacher")
    parts = {"teacher": config_of(teacher, lengths), "distillation": distillation}
    with pytest.raises(UserError, match="^the teacher in runs/teacher consists of .*decoder"):
        config_of(student, lengths, **parts)
    config_of(teacher, lengths, **parts)
