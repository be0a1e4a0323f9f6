"""Gin files as users write them: their order, and mistakes in them."""

import builtins
import dataclasses
import errno
import itertools
import math
import os
import re
import sys
import typing
from pathlib import Path

import pytest

from switch_jax import gin_config
from switch_jax.cli import main
from switch_jax.config import PARTS
from switch_jax.gin_config import checks, gin_internals, packaged, reader, run_config
from switch_jax.utils.errors import TransientError, UserError
from switch_jax.utils.paths import GIN_DIR

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


def test_a_model_after_a_run_that_it_takes_nothing_from_is_fine():
    assert _config("runs/pretrain.gin", "models/t5_base.gin").model.embed_dim == 768


def test_the_last_of_two_runs_wins():
    config = _config("models/t5_base.gin", "runs/pretrain.gin", "runs/finetune.gin")
    assert config.run.train_steps == 16_000


def test_a_file_with_a_few_fields_of_a_model_is_not_a_model(file):
    mine = file("ModelConfig.relative_position_buckets = 16\nNUM_EXPERTS = 4\n")
    model = _config("models/switch_base.gin", "runs/pretrain.gin", mine).model
    assert (model.relative_position_buckets, model.num_experts) == (16, 4)


def test_a_file_may_replace_values_of_its_includes(file):
    mine = file(DEMO + "TRAIN_STEPS = 7\nNUM_EXPERTS = 4\n")
    assert _config(mine).run.train_steps == 7


def _documented():
    """The gin files of each command in the docs and the Makefile that takes several."""
    found = set()
    root = GIN_DIR.parent
    for page in [root / "README.md", root / "Makefile", *sorted((root / "docs").glob("*.md"))]:
        text = re.sub(r"\\\n\s*", " ", page.read_text())
        for command in re.split(r"\n|\b(?:train|plan|launch)\b", text):
            for model, study in itertools.product(("t5", "switch"), ("study", "long_study")):
                named = re.sub(r"\$\*|\$\$\{model\}", model, command).replace("$${size}", "")
                named = named.replace("$(1)", study)
                files = re.findall(r"--gin_file=(\S+)", named)
                of_a_run = any(file.endswith("/config.gin") for file in files)  # not there
                if len(files) > 1 and not of_a_run:
                    found.add(tuple(files))
    return sorted(found)


def test_no_command_line_of_the_docs_is_refused(monkeypatch):
    monkeypatch.chdir(GIN_DIR.parent)  # those of the studies read files of a checkout
    monkeypatch.syspath_prepend(GIN_DIR.parent)
    documented = _documented()
    assert len(documented) >= 8
    for files in documented:
        distils = "runs/distill.gin" in files  # beside a file that starts from a checkpoint, too
        _read(*files, bindings=["INITIALIZE_FROM_TEACHER=False"] if distils else [])


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
        (DEMO + "MODEL_DIR = '''x\n", r"mine.gin: a bracket or a quote is not closed"),
        (DEMO + "MODEL_DIR =\n", r"mine.gin, line 2: Unable to parse value.*: MODEL_DIR =$"),
        (DEMO + "MODEL_DIR = /tmp/a\n", r"line 2: .*: MODEL_DIR = /tmp/a$"),
        ("include runs/demo.gin\n", r"mine.gin, line 1: .*: include runs/demo.gin"),
        (DEMO + "PACK = true\n", r"mine.gin, line 2: .*: PACK = true$"),
        (DEMO + "TRAIN_STEPS 5\n", r"mine.gin, line 2: .*: TRAIN_STEPS 5$"),
        (DEMO + "TRAIN_STEPS = @nothing\n", r"mine.gin, line 2: No configurable.*'@nothing'"),
        (DEMO + "TRAIN_STEPS = @RunConfig\n", r"TRAIN_STEPS = .*: it must be a whole number"),
        (DEMO + "RunConfg.seed = 5\n", r"mine.gin, line 2: .*'RunConfg' .did you mean RunConfig"),
        (DEMO + "A = 5\n", r"nothing uses the macro A$"),
        (DEMO + "SCALE = %SCALE\n", r"macros refer to each other in a circle$"),
        ("include 'mine.gin'\n", r"mine.gin -> .*mine.gin: the files include each other; remove o"),
        ("include 'absent.gin'\n", r"mine.gin, line 1: .*absent.gin"),
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


def test_a_macro_in_small_letters_is_known():
    with pytest.raises(UserError, match="knows a macro num_experts .did you mean NUM_EXPERTS"):
        _read("runs/demo_switch.gin", bindings=["num_experts=8"])


def test_fields_are_not_answered_by_macros(file):
    with pytest.raises(UserError, match=r"'dropout'.*did you mean dropout_rate"):
        _read(file(f"{DEMO}ModelConfig.dropout = 0.1\n"))


def test_a_file_that_is_not_text(file, tmp_path):
    (tmp_path / "mine.gin").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="mine.gin: it is not UTF-8 text"):
        _read("mine.gin")


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
        (
            "TRAIN_STEPS=5\nBATCH_SIZE=3",
            r"TRAIN_STEPS = '5\\nBATCH_SIZE=3': it must be",
        ),
        (
            "import os\nRunConfig.seed=5",
            r"--gin.import os\\nRunConfig.seed=5: write --gin.NAME=",
        ),
        ("TASK_FEATURE_LENGTHS={'inputs': 64", r"LENGTHS={'inputs': 64: a bracket is not closed"),
        ("RANDOM_SEED=-1", r"RANDOM_SEED = -1: it must be at least 0"),
        ("RunConfig.random_seed=-1", r"RunConfig.random_seed = -1: it must be at least 0"),
        ("LEARNING_RATE=1e400", r"LEARNING_RATE = inf: it must be a finite number"),
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


# Every number of every config.


def _numbers():
    """(argument, field) of all fields that are a number."""
    for argument, config in PARTS.items():
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            if {int, float} & {hints[field.name], *typing.get_args(hints[field.name])}:
                if "tuple" not in str(hints[field.name]):
                    yield argument, field.name


@pytest.fixture(scope="module")
def demo():
    return _config("runs/demo_switch.gin")


NUMBERS = list(_numbers())


@pytest.mark.parametrize(("argument", "field"), NUMBERS)
def test_every_number_has_a_type_and_a_range(argument, field, demo):
    for value in (10**30, -(10**30), -1, 1e300, math.nan, math.inf, -math.inf, True, "5", [5]):
        with pytest.raises(UserError, match=rf"^{field} = "):
            demo.replace(argument, **{field: value})


def test_every_config_has_numbers_and_every_text_of_a_model_is_one_of_several(demo):
    assert {argument for argument, _ in NUMBERS} == set(PARTS)
    assert len(NUMBERS) > 40
    hints = typing.get_type_hints(PARTS["model"])
    for field in (name for name, hint in hints.items() if hint is str):
        with pytest.raises(UserError, match=f"^{field} = 'any' is not known; write one of "):
            demo.replace("model", **{field: "any"})


def test_each_file_is_parsed_once_and_no_other_is_read(monkeypatch):
    read = []

    def opened(path, **options):
        read.append(str(Path(path).relative_to(GIN_DIR)))
        return builtins.open(path, **options)

    monkeypatch.setattr(reader, "open", opened, raising=False)
    monkeypatch.setattr(checks, "packaged_macros", None)
    monkeypatch.setattr(run_config, "packaged_macros", None)
    _read("models/switch_base.gin", "runs/pretrain.gin", bindings=["NUM_EXPERTS=8"])
    assert read == ["models/switch_base.gin", "models/t5_base.gin", "runs/pretrain.gin"]


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
    reads_another = "from switch_jax import gin_config\ngin_config.read(['runs/demo_dense.gin'])"
    file(reads_another, "mine_d.py")
    task = f"MIXTURE_OR_TASK_NAME = '{'x' * 80}'\n"
    name = file(f"import mine_d\n{DEMO}NUM_EXPERTS = 4\nMODEL_DIR = %gin.REQUIRED\n{task}")
    settings = ["NUM_EXPERTS=16", "TRAIN_STEPS=7", "MODEL_DIR=here", "RunConfig.log_period=3"]
    read = _read(name, bindings=settings)
    assert "RunConfig.log_period" not in read.origins
    text = read.explained_text()
    earlier = "models/switch_demo.gin, models/switch_base.gin"
    assert f"\nNUM_EXPERTS = 16  # --gin.NUM_EXPERTS, over mine.gin, {earlier}\n" in text
    assert "\nWEIGHT_DECAY = 0.0  # runs/pretrain.gin\n" in text
    assert "\nMODEL_DIR = 'here'  # --gin.MODEL_DIR, over runs/demo_switch.gin\n" in text
    # A long value has a line of its own, and the comment stands behind it.
    assert f"    '{'x' * 80}'  # mine.gin, over runs/demo.gin\n" in text
    assert _config(file(text, "again.gin")) == read.config


def test_a_packaged_macro_is_a_whole_name():
    macros = packaged.packaged_macros()
    assert "TRAIN_STEPS" in macros
    assert not {"", "TRAIN_STEP", "RAIN_STEPS"} & macros
