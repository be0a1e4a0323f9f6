import json
import re

import pytest

from switch_jax import gin_config
from switch_jax.cli import gin_flags, main
from switch_jax.runtime import host_memory
from switch_jax.trainer import train as training
from switch_jax.utils.errors import UserError
from tests.cli.mistakes import refused

DEMO = "--gin_file=runs/demo_switch.gin"


def test_a_gin_file_of_the_user_is_suggested(tmp_path, capsys):
    (tmp_path / "my_run.gin").touch()
    error = refused(capsys, "train", f"--gin_file={tmp_path}/my_rn.gin")
    assert f"did you mean {tmp_path}/my_run.gin" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gin_file=runs/demo_swich.gin"], r"no gin file .*did you mean runs/demo_switch.gin"),
        ([], r"no --gin_file: give one.*runs/demo_switch.gin"),
        ([DEMO, "--gin.ModelConfig.mlp_di=5"], r"have a parameter.*mlp_di.*did you mean.*mlp_dim"),
        ([DEMO, "--gin.TRAIN_STEPS"], r"--gin.TRAIN_STEPS: write --gin.TRAIN_STEPS=VALUE"),
        (["--gin_file=models/t5_base.gin"], r"do not set RunConfig.model_dir.*a run needs"),
        (
            ["--gin_file=runs/pretrain.gin", "--gin_file=models/t5_base.gin"],
            r"TASK_NAME and MODEL_DIR not set: write --gin.MIXTURE",
        ),
        (
            ["--gin_file=models/t5_base.gin", "--gin_file=runs/finetune.gin"],
            r"INITIAL_CHECKPOINT_PATH.* not set: write --gin.INITIAL_CHECKP",
        ),
        (
            [DEMO, "--gin.LR_SCHEDULE=cosine", "--gin.WARMUP_STEPS=8", "--gin.TRAIN_STEPS=8"],
            r"8 steps of warm-up and 1 of decay, more than TRAIN_STEPS = 8$",
        ),
        ([DEMO, "--gin.MIXTURE_OR_TASK_NAME=english_span_corupt"], r"did you mean english_span"),
        (
            [DEMO, "--gin.TASK_FEATURE_LENGTHS={'a': 1}"],
            r"train: TASK_FEATURE_LENGTHS = .'a': 1.: ",
        ),
        ([DEMO, "--gin.PACK=false"], r"PACK = 'false': it must be True or False"),
        ([DEMO, "--gin.BATCH_SIZE=%FOO"], r"no gin file sets the macro FOO"),
        ([DEMO, "--gin.PROFILE_STEPS=(9, 3)"], r"PROFILE_STEPS = \(9, 3\): write the first and"),
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
    assert captured.out.startswith(
        "# your files and flags set:\n"
        "#   DECODER_GROUP_SIZE = 512  # --gin.DECODER_GROUP_SIZE, over models/switch_demo.gin, "
        "models/switch_base.gin\n"
        "#   GROUP_SIZE = 128  # --gin.GROUP_SIZE, over"
    )
    # Of 128 tokens 16 come to each of 8 experts: 20 slots.
    assert "# routing in the encoder: 128 tokens in a group, 20 slots per expert" in captured.out
    assert "# routing in the decoder: 512 tokens in a group, 80 slots per expert" in captured.out
    (warning,) = captured.err.splitlines()
    assert re.search(
        r"warning: .*the encoder drops 1\.\d+ %.* a larger GROUP_SIZE or .* drops fewer", warning
    )

    (tmp_path / "printed.gin").write_text(captured.out)
    model = gin_config.read([str(tmp_path / "printed.gin")]).config.model
    assert [stack.group_size for stack in model.stacks] == [128, 512]


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
