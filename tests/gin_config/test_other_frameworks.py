"""Users of other frameworks type their names, and are told what these are called here."""

import re

import pytest

from switch_jax import gin_config
from switch_jax.errors import UserError
from switch_jax.gin_config import other_frameworks

UNNEEDED = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME")
DEMO = "include 'runs/demo_switch.gin'\n"


def _read(*files, bindings=()):
    return gin_config.read(files, bindings, unneeded=UNNEEDED)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("NUM_EXPERTS_PER_TOKEN", "NUM_SELECTED_EXPERTS"),
        ("TOP_K", "NUM_SELECTED_EXPERTS"),
        ("MOE_TOP_K", "NUM_SELECTED_EXPERTS"),
        ("num_local_experts", "NUM_EXPERTS"),
        ("SPARSE_LAYOUT", "ENCODER_SPARSE_LAYOUT and DECODER_SPARSE_LAYOUT"),
        ("BATCH_PRIORITIZED_ROUTING", "ENCODER_ROUTER_TYPE = 'batch_prioritized'"),
        ("experts_choose", "ENCODER_ROUTER_TYPE = 'experts_choose'"),
        ("SEQUENCE_LENGTH", "TASK_FEATURE_LENGTHS, of inputs and targets"),
    ],
)
def test_names_of_other_frameworks_lead_to_those_of_here(name, here, file):
    with pytest.raises(UserError, match=f"knows a macro {name}; here it is {here}$"):
        _read("runs/demo_switch.gin", bindings=[f"{name}=2"])
    with pytest.raises(UserError, match=f"nothing uses the macro {name}; here it is {here}$"):
        _read(file(f"{DEMO}{name} = 2\n"))


@pytest.mark.parametrize("name", ["DECODER_ROUTER_TYPE", "lora_alpha", "LORA"])
def test_what_is_not_here_is_answered_with_what_to_do_instead(name, file):
    instead = f"; there is no such thing here: {other_frameworks.ABSENT[name.upper()]} .docs"
    with pytest.raises(UserError, match=f"knows a macro {name}{instead}"):
        _read("runs/demo_switch.gin", bindings=[f"{name}=True"])
    with pytest.raises(UserError, match=f"nothing uses the macro {name}{instead}"):
        _read(file(f"{DEMO}{name} = True\n"))


def test_what_names_of_other_frameworks_are_here_exists():
    known = _read("models/switch_base.gin", "runs/pretrain.gin").origins
    tables = other_frameworks.MACROS, other_frameworks.CONFIGURABLES, other_frameworks.ABSENT
    here = [text for table in tables for text in table.values()]
    macros = [name for text in here for name in re.findall("[A-Z_]{5,}", text)]
    assert set(macros) - {"MODULE"} <= set(known)
    assert not {*other_frameworks.MACROS, *other_frameworks.ABSENT} & set(known)
    assert not set(other_frameworks.MACROS) & set(other_frameworks.ABSENT)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        (
            "train.stats_period",
            "'train', a name of T5X or flaxformer; set macros such as TRAIN",
        ),
        ("trainer.Trainer.num_microbatches", "; set macros such as NUM_MICROBATCHES .docs"),
        ("train/utils.DatasetConfig.batch_size", "; set macros such as MIXTURE_.*, BATCH_SIZE and"),
        ("utils.NothingOfTheirs.period", "'utils.NothingOfTheirs'; known are RunConfig"),
    ],
)
def test_bindings_of_t5x_lead_to_macros(binding, message, file):
    with pytest.raises(UserError, match=f"^--gin.{binding}: .*{message}"):
        _read("runs/demo_switch.gin", bindings=[f"{binding}=2"])
    with pytest.raises(UserError, match=f"mine.gin, line .*{message}"):
        _read(file(f"{DEMO}{binding} = 2\n"))


def test_a_gin_file_of_t5x_is_told_from_one_of_here(file):
    theirs = file("from __gin__ import dynamic_registration\n\nfrom t5x import models\n")
    with pytest.raises(UserError, match=r"line 3: gin files that import t5x.models are not read"):
        _read(theirs)
