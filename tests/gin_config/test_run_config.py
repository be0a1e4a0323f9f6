"""Gin files as users write them: their order, and mistakes in them."""

import errno
import math
import os
import re
import sys
import typing

import pytest

from switch_jax import gin_config
from switch_jax.cli import main
from switch_jax.config import PARTS
from switch_jax.gin_config import gin_internals, reader
from switch_jax.utils.errors import TransientError, UserError

UNNEEDED = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "INITIAL_CHECKPOINT_PATH", "TEACHER_DIR")
DEMO = "include 'runs/demo_switch.gin'\n"


def _read(*files, bindings=()):
    return gin_config.read(files, bindings, unneeded=UNNEEDED)


def _config(*files, bindings=()):
    return _read(*files, bindings=bindings).config


# The order of files.


def test_a_model_after_what_changes_it_is_refused():
    files = ["runs/finetune.gin", "models/t5_base.gin"]
    message = (
        "^models/t5_base.gin describes a whole model, and replaces what runs/finetune.gin sets: "
        "DROPOUT_RATE = 0.1 by 0.0; give one model, before other files$"
    )
    with pytest.raises(UserError, match=message):
        _read(*files)
    assert _config(*reversed(files)).model.dropout_rate == 0.1


def test_two_models_are_refused():
    files = "runs/demo_switch.gin", "models/switch_base.gin"  # also one that a file includes
    for first, second in (files, files[::-1]):
        with pytest.raises(UserError, match=f"{second} .* replaces what {first} sets"):
            _read(first, second)


def test_the_last_of_two_runs_wins_and_a_model_may_follow_what_it_takes_nothing_from():
    config = _config("runs/pretrain.gin", "models/t5_base.gin", "runs/finetune.gin")
    assert (config.run.train_steps, config.model.embed_dim) == (16_000, 768)


def test_a_file_with_a_few_fields_of_a_model_is_not_a_model(file):
    """And it may have macros of its own, also in a container."""
    lengths = "LENGTH = 64\nTASK_FEATURE_LENGTHS = {'inputs': %LENGTH, 'targets': 16}\n"
    mine = file(f"ModelConfig.relative_position_buckets = 16\nNUM_EXPERTS = 4\n{lengths}")
    config = _config("models/switch_base.gin", "runs/pretrain.gin", mine)
    assert (config.model.relative_position_buckets, config.model.num_experts) == (16, 4)
    assert config.data.lengths == (64, 16)


# Mistakes in files.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            DEMO + "TASK_FEATURE_LENGTHS = {'inputs': 64,\n  'targets': 16\n",
            r"mine.gin: a bracket or a quote is not closed",
        ),
        (
            DEMO + "TASK_FEATURE_LENGTHS = {'inputs': 64\nTRAIN_STEPS = 5\n",
            r"mine.gin, line 3: Expected ',' or '}'.*: TRAIN_STEPS = 5$",
        ),
        (DEMO + "MODEL_DIR = /tmp/a\n", r"line 2: .*: MODEL_DIR = /tmp/a$"),
        (DEMO + "PACK = true\n", r"mine.gin, line 2: .*: PACK = true$"),
        (DEMO + "TRAIN_STEPS = @nothing\n", r"mine.gin, line 2: No configurable.*'@nothing'"),
        (DEMO + "TRAIN_STEPS = @RunConfig\n", r"TRAIN_STEPS = .*: it must be a whole number"),
        (DEMO + "RunConfg.seed = 5\n", r"mine.gin, line 2: .*'RunConfg' .did you mean RunConfig"),
        (DEMO + "TRAIN_STEP = 5\n", r"nothing uses the macro TRAIN_STEP .did you mean TRAIN_STEPS"),
        (DEMO + "SCALE = %SCALE\n", r"macros refer to each other in a circle$"),
        ("include 'mine.gin'\n", r"mine.gin -> .*mine.gin: the files include each other; remove o"),
        (
            "include 'runs/demo_swich.gin'\n",
            r"mine.gin, line 1: no gin file runs/demo_swich.gin in ., [^\[]* .did you mean runs/",
        ),
        ("\nimport absent_y\n", r"mine.gin, line 2: cannot import 'absent_y'.*: give a module"),
        ("import mine_a\n", r"mine.gin, line 1: cannot import 'mine_a': KeyError in .*, line 2:"),
        ("import mine_c\n", r"mine.gin, line 1: cannot import 'mine_c': SyntaxError in .*, line 1"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_its_location(text, message, file, capsys):
    file("\n{}['k']\n", "mine_a.py")
    file("x = = 1\n", "mine_c.py")
    assert main(["train", f"--gin_file={file(text)}", "--dry_run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_a_binary_file_is_named_as_one(tmp_path):
    (tmp_path / "model.gin").write_bytes(b"\x1f\x8b\x08\x00")
    message = "^model.gin: a binary file, or text in another encoding: not UTF-8 at byte 1$"
    with pytest.raises(UserError, match=message):
        _read("model.gin")


def test_experts_of_a_dense_model_are_a_mistake(file):
    """In the file and on the command line alike."""
    dense = "include 'runs/demo_dense.gin'\n"
    with pytest.raises(UserError, match="^NUM_EXPERTS = 8 is for a model with experts, and the"):
        _read(file(dense + "NUM_EXPERTS = 8\n"))
    with pytest.raises(UserError, match="^no gin file knows a macro NUM_EXPERTS$"):
        _read(file(dense), bindings=["NUM_EXPERTS=8"])


def test_a_dense_models_file_after_that_of_switch_base_gives_it_experts(file):
    """And a run's file may set what only models with experts use."""
    both = "include 'models/switch_base.gin'\ninclude 'models/t5_small.gin'\n"
    run = "include 'runs/pretrain.gin'\nMODEL_DIR = 'a'\nMIXTURE_OR_TASK_NAME = 'b'\n"
    model = _config(file(both + run), bindings=["NUM_EXPERTS=8"]).model
    assert (model.num_experts, model.embed_dim) == (8, 512)
    assert _config(file("include 'runs/demo_dense.gin'\nGROUP_SIZE = 8\n")).model.num_experts == 0


@pytest.mark.parametrize(
    ("number", "kind", "of", "name"),
    [
        (errno.EIO, TransientError, reader, "open"),
        (errno.EIO, TransientError, os, "stat"),
        (errno.EACCES, UserError, reader, "open"),
    ],
)
def test_a_fault_of_the_storage_may_pass_and_a_refusal_stays(
    number, kind, of, name, file, monkeypatch
):
    real, mine = getattr(of, name, open), file(DEMO)

    def fail(path, *args, **kwargs):
        if str(path).endswith("mine.gin"):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(of, name, fail, raising=False)
        with pytest.raises(UserError, match=f"mine.gin cannot be read: {os.strerror(number)}") as e:
            _read(mine)
    assert type(e.value) is kind


# Values of the command line.


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("TRAIN_STEPS=5\nBATCH_SIZE=3", r"TRAIN_STEPS = '5\\nBATCH_SIZE=3': it must be"),
        ("import os\nRunConfig.seed=5", r"--gin.import os\\nRunConfig.seed=5: write --gin.NAME="),
        ("TASK_FEATURE_LENGTHS={'inputs': 64", r"LENGTHS={'inputs': 64: a bracket is not closed"),
        ("num_experts=8", r"knows a macro num_experts .did you mean NUM_EXPERTS"),
        ("RANDOM_SEED=-1", r"RANDOM_SEED = -1: it must be at least 0"),
        ("RunConfig.random_seed=-1", r"RunConfig.random_seed = -1: it must be at least 0"),
        ("LEARNING_RATE=nan", r"LEARNING_RATE = 'nan': it must be a number"),
    ],
)
def test_a_value_of_the_command_line_is_one_value(binding, message):
    with pytest.raises(UserError, match=message):
        _config("runs/demo_switch.gin", bindings=[binding])


def test_a_path_with_a_newline_stays_one_value():
    config = _config("runs/demo_switch.gin", bindings=["MODEL_DIR=/tmp/a\nTRAIN_STEPS = 5"])
    assert (config.run.model_dir, config.run.train_steps) == ("/tmp/a\nTRAIN_STEPS = 5", 2500)
    quoted = _config(
        "runs/demo_switch.gin", bindings=["MODEL_DIR='a\\nb'\nimport tests.cli.answers"]
    )
    assert quoted.run.model_dir == "'a\\nb'\nimport tests.cli.answers" and quoted.imports == ()


# Every field of every config.


def test_every_number_has_a_type_and_a_range():
    demo, tested = _config("runs/demo_switch.gin"), []
    for part, config in PARTS.items():
        for field, hint in typing.get_type_hints(config).items():
            if not {int, float} & {hint, *typing.get_args(hint)}:
                continue
            tested.append(part)
            for value in (10**30, -(10**30), -1, math.nan, math.inf, -math.inf, True, "5", [5]):
                with pytest.raises(UserError, match=f"^{field} = "):
                    demo.replace(part, **{field: value})
    assert set(tested) == set(PARTS) and len(tested) > 40


def test_every_text_of_a_model_is_one_of_several():
    demo = _config("runs/demo_switch.gin")
    for field, hint in typing.get_type_hints(PARTS["model"]).items():
        if hint is str:
            with pytest.raises(UserError, match=f"^{field} = 'any' is not known; write one of "):
                demo.replace("model", **{field: "any"})


# What is read.


def test_a_command_keeps_what_a_file_sets_of_the_users_functions(file):
    file("import gin\n\n@gin.configurable\ndef answer(x=1):\n    return x\n", "mine_e.py")
    name = file(f"import mine_e\n{DEMO}mine_e.answer.x = 42\n")
    _read(name)
    answer = sys.modules["mine_e"].answer
    assert answer() == 1
    with gin_internals.state_restored():
        gin_config.read([name], keep=True)
        assert answer() == 42
        _read("runs/demo_dense.gin")
        assert answer() == 42


def test_the_explained_config_says_what_set_each_macro_and_describes_the_same_run(file):
    reads = "gin_config.read(['runs/demo_dense.gin'], ['Z_LOSS=0.1'])"  # nothing for this run
    file(f"from switch_jax import gin_config\n{reads}", "mine_d.py")
    task = f"MIXTURE_OR_TASK_NAME = '{'x' * 80}'\n"
    name = file(f"import mine_d\n{DEMO}NUM_EXPERTS = 4\nMODEL_DIR = %gin.REQUIRED\n{task}")
    settings = ["NUM_EXPERTS=16", "TRAIN_STEPS=7", "MODEL_DIR=here", "RunConfig.log_period=3"]
    read = _read(name, bindings=settings)
    text = read.explained_text()
    earlier = "models/switch_demo.gin, models/switch_base.gin"
    assert f"\nNUM_EXPERTS = 16  # --gin.NUM_EXPERTS, over mine.gin, {earlier}\n" in text
    assert "\nZ_LOSS = 0.0001  # runs/pretrain.gin\n" in text
    assert "\nMODEL_DIR = 'here'  # --gin.MODEL_DIR, over runs/demo_switch.gin\n" in text
    # A long value has a line of its own, and the comment stands behind it.
    assert f"    '{'x' * 80}'  # mine.gin, over runs/demo.gin\n" in text
    assert _config(file(text, "again.gin")) == read.config
    assert "\nRunConfig.log_period = 3  # --gin.RunConfig.log_period\n" in text
    assert "\nRunConfig.train_steps = %TRAIN_STEPS\n" in text


def test_user_settings_are_those_of_the_users_flags_and_files(file):
    lengths = (
        "TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 16}\nModelConfig.norm_epsilon = 0.1\n"
    )
    name, settings = file(f"{DEMO}{lengths}"), ["SCALE=0.1", "RunConfig.log_period=3"]
    assert _read(name, bindings=settings).user_settings() == [
        "SCALE = 0.1  # --gin.SCALE, over models/switch_demo.gin, models/switch_base.gin",
        "TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 16}  # mine.gin, over runs/demo.gin, "
        "runs/pretrain.gin",
        "ModelConfig.norm_epsilon = 0.1  # mine.gin",
        "RunConfig.log_period = 3  # --gin.RunConfig.log_period",
    ]
    assert _read("runs/demo_switch.gin").user_settings() == []
    whole = file(_read("runs/demo_switch.gin").text, "config.gin")
    (changed,) = _read(whole, bindings=["TRAIN_STEPS=5"]).user_settings()
    assert changed == "TRAIN_STEPS = 5  # --gin.TRAIN_STEPS, over config.gin"
