import json
import os
import re
import subprocess
import sys

import pytest

from switch_jax import gin_config
from switch_jax.cli import gin_flags, main
from switch_jax.gin_config.packaged import packaged_files
from switch_jax.runtime import host_memory
from switch_jax.train_step.microbatches import check_batch
from switch_jax.trainer import train as training
from switch_jax.utils.errors import UserError
from tests.cli.mistakes import refused

DEMO = "--gin_file=runs/demo_switch.gin"


def test_a_gin_file_of_the_user_is_suggested(tmp_path, capsys):
    (tmp_path / "my_run.gin").touch()
    for file in ("my_rn.gin", str(tmp_path / "my_rn.gin")):
        error = refused(capsys, "train", f"--gin_file={file}")
        assert f"did you mean {file.replace('my_rn', 'my_run')}" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gin_file=runs/demo_swich.gin"], r"no gin file .*did you mean runs/demo_switch.gin"),
        ([], r"no --gin_file: give one.*runs/demo_switch.gin"),
        ([DEMO, "--gin.ModelConfig.mlp_di=5"], r"have a parameter.*mlp_di.*did you mean.*mlp_dim"),
        ([DEMO, "--gin.TRAIN_STEPS"], r"--gin.TRAIN_STEPS: write --gin.TRAIN_STEPS=VALUE"),
        ([DEMO, "--gin.TRAIN_STEPS=0"], r"TRAIN_STEPS = 0: it must be at least 1"),
        (["--gin_file=models/t5_base.gin"], r"do not set RunConfig.model_dir.*a run needs"),
        (
            ["--gin_file=runs/pretrain.gin", "--gin_file=models/t5_base.gin"],
            r"TASK_NAME and MODEL_DIR not set: write --gin.MIXTURE",
        ),
        (
            ["--gin_file=models/t5_base.gin", "--gin_file=runs/finetune.gin"],
            r"^switch_jax train: .*INITIAL_CHECKPOINT_PATH.* not set: write --gin.INITIAL_CHECKP",
        ),
        (
            [DEMO, "--gin.LR_SCHEDULE=cosine", "--gin.WARMUP_STEPS=8", "--gin.TRAIN_STEPS=8"],
            r"8 steps of warm-up and 1 of decay, more than TRAIN_STEPS = 8$",
        ),
        ([DEMO, "--gin.MIXTURE_OR_TASK_NAME=english_span_corupt"], r"did you mean english_span"),
        ([DEMO, "--gin.PACK=false"], r"PACK = 'false': it must be True or False"),
        ([DEMO, "--gin.BATCH_SIZE=%FOO"], r"no gin file sets the macro FOO"),
        ([DEMO, "--gin.PROFILE_STEPS=(9, 3)"], r"PROFILE_STEPS = \(9, 3\): write the first and"),
        ([DEMO, "--gin.GROUP_SIZE=100000"], r"^switch_jax train: GROUP_SIZE = 100000 does not fit"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, message, capsys, tmp_path):
    folder = [f"--gin.MODEL_DIR={tmp_path / 'run'}"] if arguments[:1] == [DEMO] else []
    assert re.search(message, refused(capsys, "train", *folder, *arguments))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prints_a_gin_file_with_the_groups_and_warns_of_small_ones(capsys, tmp_path):
    command = ["train", DEMO, f"--gin.MODEL_DIR={tmp_path}", "--gin.GROUP_SIZE=128", "--dry_run"]
    assert main([*command, "--gin.DECODER_GROUP_SIZE=512"]) == 0
    captured = capsys.readouterr()
    # Of 128 tokens 16 come to each of 8 experts: 20 slots.
    assert "# routing in the encoder: 128 tokens in a group, 20 slots per expert" in captured.out
    assert "# routing in the decoder: 512 tokens in a group, 80 slots per expert" in captured.out
    (warning,) = captured.err.splitlines()
    assert re.search(
        r"warning: .*the encoder drops 1\.\d+ %.* a larger GROUP_SIZE or .* drops fewer", warning
    )

    (tmp_path / "printed.gin").write_text(captured.out)
    model = gin_config.read([str(tmp_path / "printed.gin")]).config.model
    assert model.group_sizes == {"encoder": 128, "decoder": 512}


@pytest.mark.parametrize(
    "flags", [["--gin.BATCH_SIZE=33"], ["--gin_file=runs/distill.gin", "--gin.TEACHER_DIR=gone"]]
)
def test_a_mistake_after_a_crash_is_in_the_status_unless_it_was_a_dry_run(flags, capsys, tmp_path):
    status = tmp_path / "status.json"
    status.write_text('{"state": "running"}')
    mistake = ["train", DEMO, *flags, f"--gin.MODEL_DIR={tmp_path}"]
    refused(capsys, *mistake, "--dry_run")
    assert json.loads(status.read_text()) == {"state": "running"}
    error = refused(capsys, *mistake)
    facts = json.loads(status.read_text())
    assert facts["state"] == "failed" and error == f"switch_jax train: {facts['message']}"


def test_freed_memory_is_kept_from_before_the_configs_are_read(monkeypatch):
    called = []
    monkeypatch.setattr(host_memory, "keep_freed_memory", lambda: called.append("keep"))

    def read(args):
        called.append("read")
        raise UserError("enough")

    monkeypatch.setattr(gin_flags, "read", read)
    assert main(["train", DEMO]) == 2
    assert called == ["keep", "read"]


def test_a_loss_that_has_risen_is_told_at_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "train", lambda *args: None)
    records = [{"kind": "train", "step": i, "loss": x} for i, x in enumerate((2, 2, 3, 3), 1)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert main(["train", DEMO, f"--gin.MODEL_DIR={tmp_path}"]) == 0
    assert capsys.readouterr().err == (
        "switch_jax train: warning: the loss has risen from 2 to 3: is LEARNING_RATE too high, "
        "or is the data another one?\n"
    )


def test_fields_may_be_set_directly():
    bindings = ["ModelConfig.mlp_dim=24", "RunConfig.batch_size=128", "LossConfig.z_loss=0"]
    config = gin_config.read(["runs/demo_dense.gin"], bindings).config
    assert (config.model.mlp_dim, config.run.batch_size, config.loss.z_loss) == (24, 128, 0)


def test_a_file_and_a_task_module_of_somebody_s_own(tmp_path):
    """As a user would: a folder outside the package with a gin file and a module."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "runs").mkdir()  # as an earlier run leaves it; the packaged runs/ is found even so
    (tmp_path / "my_tasks.py").write_text(
        "import seqio\n"
        "from switch_jax.tasks import english\n"
        "seqio.MixtureRegistry.add('mine', [('factbook_span_corruption', 1)])\n"
    )
    (tmp_path / "configs/mine.gin").write_text(
        "import my_tasks\n"
        "include 'runs/demo_switch.gin'\n"
        "MIXTURE_OR_TASK_NAME = 'mine'\n"
        "MODEL_DIR = 'here'\n"
        "NUM_EXPERTS = 4\n"
    )
    command = [sys.executable, "-m", "switch_jax", "train", "--gin_search_paths=configs"]
    command += ["--gin_file=mine.gin", "--gin.TRAIN_STEPS=7", "--dry_run"]
    # Without the virtual devices of these tests: the mesh of two has to make its own.
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ModelConfig.num_experts = %NUM_EXPERTS" in done.stdout
    assert "denoise" not in done.stdout, "a function of T5, which makes the example that is read"
    # What set each macro, and over what; the last one first.
    earlier = "models/switch_demo.gin, models/switch_base.gin"
    assert f"\nNUM_EXPERTS = 4  # configs/mine.gin, over {earlier}\n" in done.stdout
    assert "\nTRAIN_STEPS = 7  # --gin.TRAIN_STEPS, over runs/demo.gin, runs/" in done.stdout
    assert "\nWEIGHT_DECAY = 0.0  # runs/pretrain.gin\n" in done.stdout


@pytest.mark.parametrize("run", [f for f in packaged_files() if "runs/demo_" in f])
def test_every_packaged_run_builds(run):
    config = gin_config.read([run]).config
    questions = {"runs/demo_finetune.gin": "factbook_qa_open"}
    task = questions.get(run, "english_span_corruption")
    assert config.data.mixture_or_task_name == task
    check_batch(config, {"data": config.mesh.data, "expert": config.mesh.expert, "model": 1})
