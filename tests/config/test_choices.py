"""Each name that a field may have has an entry where it is looked up: none falls through."""

import pytest

from switch_jax.config import PARTS
from switch_jax.config.experts import SUBLAYERS
from switch_jax.config.schedules import SCHEDULES
from switch_jax.config.sparse_layers import LAYOUTS
from switch_jax.model.activations import ACTIVATIONS
from switch_jax.model.remat import SAVED
from switch_jax.moe.policies import POLICIES
from switch_jax.optim.optimizer import DIRECTIONS
from switch_jax.optim.schedules import FORMULAS
from switch_jax.utils.fields import OneOf, hints_of, notes_of

TABLES = {
    "activation": [ACTIVATIONS],
    "encoder_router_type": [POLICIES],
    "encoder_sparse_layout": [LAYOUTS],
    "decoder_sparse_layout": [LAYOUTS],
    "expert_sublayers": [SUBLAYERS],
    "remat_policy": [SAVED],
    "lr_schedule": [SCHEDULES, FORMULAS],
    "optimizer": [{"adafactor", *DIRECTIONS}],  # Adafactor is one function with all of its step
    # What has no table is asked for by name where it acts: add a name there first, and then here.
    "second_expert_policy": [{"all", "random"}],  # moe/tokens_choose.py
    "router_policy": [{"argmax", "sample", "input_dropout"}],  # moe/tokens_choose.py
    "load_balance": [{"loss", "bias", "none"}],  # train_step/loss.py, model/feed_forward.py
    "router_dtype": [{"float32", "bfloat16"}],  # names of dtypes
    "activation_dtype": [{"float32", "bfloat16"}],
    "positions": [{"relative_bias", "rotary"}],  # AttentionConfig.has_rotary_positions
    "gpu_attention": [{"xla", "cudnn"}],  # model/fused_attention.py
    "upcycle": [{"copy", "scaled_copy"}],  # trainer/start/upcycling.py
}
CHOICES = {
    name: note
    for part in PARTS.values()
    for name, hint in hints_of(part).items()
    for note in notes_of(hint)
    if isinstance(note, OneOf)
}


@pytest.mark.parametrize("field", CHOICES)
def test_each_name_has_an_entry_and_each_entry_a_name(field):
    assert field in TABLES, "say where its names are looked up"
    for table in TABLES[field]:
        assert set(table) == set(CHOICES[field])
