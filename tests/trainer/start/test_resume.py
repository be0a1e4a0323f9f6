"""What a start, or a dry run, says of the run in MODEL_DIR; refused starts change nothing."""

import json
import re
import shutil
import sys
from pathlib import Path

import jax
import pytest

from switch_jax.data.catalogue.configured_tasks import OpenedTasks
from switch_jax.data.reading.position import Cursor
from switch_jax.inference import trained_model
from switch_jax.inference.trained_model import ModelFolder, prepare_model
from switch_jax.model import abstract_parameters
from switch_jax.monitoring import memory
from switch_jax.run_folder import RunFolder
from switch_jax.trainer.start import announcement, resume, state_memory
from switch_jax.trainer.start import prepare as prepare_module
from switch_jax.trainer.start.dry_run import dry_run
from switch_jax.trainer.start.prepare import prepare
from switch_jax.trainer.train import train
from switch_jax.utils.errors import TransientError, UserError
from tests.trainer.tiny_runs import DENSE, FAST, IMPATIENT, config_of


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run that has done its two steps; `replace` makes another start in its folder."""
    parts = {"model": DENSE, "optimizer": FAST, "guard": IMPATIENT}
    config = config_of(tmp_path_factory.mktemp("run"), 2, **parts, eval_steps=1)
    train(config)
    return config


def _copied(config, folder, **run):
    """Its start in a copy of the run's folder."""
    shutil.copytree(config.run.model_dir, folder)
    return config.replace("run", model_dir=str(folder), **run)


def _files(config):
    folder = RunFolder.at(config.run.model_dir).path
    return {p: p.read_bytes() for p in folder.glob("*") if p.is_file()}


def test_a_dry_run_says_where_the_run_is_and_what_the_start_changes(config):
    before = _files(config)
    rates = {"learning_rate": 0.5, "learning_rate_factors": (("encoder/.*", 0.1),)}
    lines = dry_run(config.replace("run", train_steps=5).replace("optimizer", **rates))
    assert lines[-2:] == [
        f"continuing from the checkpoint of step 2 in {config.run.model_dir}",
        "this start changes the run's config: TRAIN_STEPS 2 -> 5, LEARNING_RATE 0.1 -> 0.5, "
        "LEARNING_RATE_FACTORS None -> [['encoder/.*', 0.1]]",
    ]
    size = sum(array.size for array in jax.tree.leaves(abstract_parameters(DENSE)))
    assert lines[1:3] == [
        f"dense T5, {size:,} parameters; tiny_copy; mesh data x expert x model = 1 x 1 x 1 of cpu",
        "5 steps of 384 tokens: 8 rows of 32 + 16, padding included",
    ]
    assert _files(config) == before


def test_lost_text_is_said_at_the_first_start_and_after_a_change(config, monkeypatch):
    monkeypatch.setattr(announcement, "lost_text", lambda tasks: ["lost"])
    again, changed = prepare(config), prepare(config.replace("run", train_steps=5))
    assert "lost" in announcement.beginning(again, None)
    assert "lost" not in announcement.beginning(again, again.saved)
    assert "lost" in announcement.beginning(changed, changed.saved)


def test_a_start_may_change_the_task_if_it_says_so(config):
    changed = config.replace("data", mixture_or_task_name="factbook_span_corruption")
    lines = dry_run(changed.replace("run", train_steps=5), change_task=True)
    change = "MIXTURE_OR_TASK_NAME 'tiny_copy' -> 'factbook_span_corruption'"
    assert lines[-2] == f"this start changes the run's config: TRAIN_STEPS 2 -> 5, {change}"
    assert re.fullmatch(
        r"the best evaluation is sought anew \(files of tiny_copy '\w+' -> absent, files of "
        r"factbook_span_corruption absent -> '\w+'\): evaluations and checkpoints from before are "
        "not compared with those to come; copy one that you want to keep",
        lines[-1],
    )


def test_a_start_with_other_data_files_is_refused_unless_it_says_so(config, monkeypatch):
    position = prepare(config).saved.position
    saved = RunFolder(Path(config.run.model_dir)).checkpoint(2)
    own = OpenedTasks.files_digests.func

    def others(opened):
        return own(opened) | ({"tiny_copy": "others"} if opened.config.split == "train" else {})

    monkeypatch.setattr(OpenedTasks, "files_digests", property(others))
    message = (
        f"the checkpoint of step 2 in {saved.parent} was made with other data files of tiny_copy, "
        "by their names and sizes: bring them back, or to go on with these at the beginning of the "
        "next epoch add --change_task"
    )
    before, longer = _files(config), config.replace("run", train_steps=5)
    with pytest.raises(UserError, match=re.escape(message)):
        train(longer)
    assert _files(config) == before
    assert dry_run(longer, change_task=True)[-1] == (
        "the data files of tiny_copy have changed: each stream goes on with them at the beginning "
        "of its next epoch"
    )
    changed = prepare(config, change_task=True).saved.position
    for stream in (0, 1):
        draws, (cursor,) = position.stream(stream, ["tiny_copy"])
        assert changed.stream(stream, ["tiny_copy"]) == (draws, [Cursor(cursor.epoch + 1)])


def test_a_host_with_other_files_is_named(config, monkeypatch):
    def gather(own):
        return [own, own, {**own, "tiny_copy": "others"}]

    monkeypatch.setattr(prepare_module, "gather", gather)
    message = "process 2 has other data files than process 0, by their names and sizes: give all"
    with pytest.raises(UserError, match=message):
        dry_run(config)


def test_a_dry_run_of_a_finished_run_has_nothing_to_do(config):
    done = f"{config.run.model_dir} is at step 2 of 2: nothing to do"
    assert dry_run(config)[-1] == done
    assert dry_run(config.replace("optimizer", learning_rate=0.5))[-1] == (
        f"{done}, so these changes to the run's config have no effect: LEARNING_RATE 0.1 -> 0.5"
    )


def test_a_run_whose_config_is_not_there_goes_on_without_a_comparison(config, tmp_path):
    start = _copied(config, tmp_path / "run", train_steps=5)
    (tmp_path / "run/config.json").write_text("{")
    with pytest.raises(UserError, match=rf"{tmp_path}/run/config.json is damaged, or was written"):
        dry_run(start)
    (tmp_path / "run/config.json").unlink()
    absent = f"{tmp_path}/run has no config.json to compare this start's config with: write "
    assert dry_run(start)[-1].startswith(absent)
    other = start.replace("data", mixture_or_task_name="factbook_span_corruption")
    with pytest.raises(UserError, match="trains on tiny_copy, and this start on factbook_span_c"):
        dry_run(other)


@pytest.mark.parametrize("content", [None, "", '{"vocabulary": {"inputs": "Sen', "{}"])
def test_without_facts_no_other_vocabulary_is_taken_in_silence(config, tmp_path, capsys, content):
    start = _copied(config, tmp_path / "run", train_steps=5)
    facts = tmp_path / "run/run.json"
    facts.unlink() if content is None else facts.write_text(content)
    before, in_bytes = _files(start), start.replace("data", vocabulary="byte")
    with pytest.raises(UserError, match="^VOCABULARY None -> 'byte': the run in .* goes on with"):
        train(in_bytes)
    assert _files(start) == before
    (tmp_path / "run/config.json").unlink()  # which shows another one, too
    capsys.readouterr()
    dry_run(in_bytes)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"warning: {facts} ") and said.endswith("cannot be checked")


@pytest.fixture
def refused(monkeypatch):
    """refused(module): the errors that end all processes, also those that do not meet them."""
    errors = []

    def run_on_all(action):
        try:
            return action()
        except UserError as error:
            errors.append(error)
            raise

    def of(module):
        monkeypatch.setattr(module, "run_on_all", run_on_all)
        return errors

    return of


def test_where_facts_are_gone_all_processes_refuse_another_vocabulary(config, tmp_path, refused):
    start, errors = _copied(config, tmp_path / "run", train_steps=5), refused(resume)
    (tmp_path / "run/run.json").unlink()
    with pytest.raises(UserError, match="^VOCABULARY None -> 'byte'") as raised:
        dry_run(start.replace("data", vocabulary="byte"))
    assert errors == [raised.value]


def test_where_facts_cannot_be_read_no_process_goes_on_with_the_model(config, tmp_path, refused):
    config, errors = _copied(config, tmp_path / "run"), refused(trained_model)
    (tmp_path / "run/run.json").unlink()
    (tmp_path / "run/run.json").symlink_to("run.json")
    with pytest.raises(TransientError, match="run.json cannot be read") as raised:
        prepare_model(ModelFolder(tmp_path / "run", None, config, ""))
    assert errors == [raised.value]


def test_a_model_gets_its_mesh_before_anything_starts_jax(config, tmp_path, monkeypatch):
    """JAX makes no more virtual CPU devices once it has started, as `run_on_all` lets it."""
    calls = []
    for name in ("mesh_for_inference", "run_on_all"):
        function = getattr(trained_model, name)

        def called(*args, name=name, function=function, **options):
            calls.append(name)
            return function(*args, **options)

        monkeypatch.setattr(trained_model, name, called)
    prepare_model(ModelFolder(tmp_path / "run", None, _copied(config, tmp_path / "run"), ""))
    assert calls == ["mesh_for_inference", "run_on_all"]


def test_facts_that_cannot_be_read_end_the_start(config, tmp_path):
    start = _copied(config, tmp_path / "run", train_steps=5)
    (tmp_path / "run/run.json").unlink()
    (tmp_path / "run/run.json").symlink_to("run.json")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(TransientError, match="run.json cannot be read: .*this may pass: start ag"):
        train(start)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    assert RunFolder.at(str(tmp_path / "run")).checkpoint_steps() == [2]


def test_a_dry_run_of_a_new_run_makes_no_folder(config, tmp_path):
    new = config.replace("run", model_dir=str(tmp_path / "new"))
    assert dry_run(new)[-1] == f"starting from scratch in {tmp_path}/new"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_starts_from_scratch_no_more_than_a_start_where_all_is_damaged(config, tmp_path):
    copy = _copied(config, tmp_path / "run")
    for description in tmp_path.glob("run/checkpoints/*/state/_METADATA"):
        description.write_text("damaged")
    message = f"all checkpoints of the run in {tmp_path}/run are damaged: none can be read"
    with pytest.raises(UserError, match=message):
        dry_run(copy)
    assert not (tmp_path / "run/damaged").exists()
    (tmp_path / "run/damaged").mkdir()
    (tmp_path / "run/checkpoints/2").rename(tmp_path / "run/damaged/2")
    with pytest.raises(UserError, match=message):
        dry_run(copy)


def test_a_dry_run_says_which_newer_checkpoint_is_damaged(config, tmp_path):
    longer = _copied(config, tmp_path / "run", train_steps=6)
    newest = tmp_path / "run/checkpoints/4"
    shutil.copytree(tmp_path / "run/checkpoints/2", newest)
    (newest / "state/_METADATA").write_text("damaged")
    warning = "of step 4 the checkpoint is damaged: what came after step 2 is computed again"
    assert f"warning: {warning}" in dry_run(longer)
    assert newest.exists()


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "model",
            {"num_heads": 1, "head_dim": 16},
            "step 2 in .* is of another model: HEAD_DIM 8 -> 16, NUM_HEADS 2 -> 1; write",
        ),
        ("optimizer", {"optimizer": "adamw"}, r"^OPTIMIZER 'adafactor' -> 'adamw': the run in .*"),
        (
            "optimizer",
            {"trained_parameters": "decoder/.*"},
            r"arrays differ \(.*; this start changes the run's config \(TRAINED_PARAMETERS 'all'",
        ),
        ("data", {"vocabulary": "byte"}, r"another vocabulary \(ByteV.* than .* was trained with"),
        (
            "data",
            {"mixture_or_task_name": "factbook_span_corruption"},
            "trains on tiny_copy, and this start on factbook_span.* add --change_task",
        ),
        ("data", {"data_streams": 4}, "DATA_STREAMS is 4, .* made with 2: write --gin.DATA_STR"),
        ("run", {"wandb_project": "mine"}, "wandb is not installed: pip install -c r"),
    ],
)
def test_a_start_that_does_not_fit_the_run_is_refused_and_changes_nothing(
    config, monkeypatch, part, changes, message
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    before, changed = _files(config), config.replace(part, **changes)
    with pytest.raises(UserError, match=message):
        train(changed)
    assert _files(config) == before
    status = json.loads(RunFolder.at(config.run.model_dir).status.read_text())
    assert status["state"] == "finished"


def test_a_state_or_logits_larger_than_memory_are_told(config, monkeypatch):
    """By hand: 1152 x 16 rows of the embedding, and the matrices of a layer of each stack.

    The logits are those of 8 / 4 rows of a microbatch x 16 targets x 1152 ids in float32.
    """
    prepared = prepare(config.replace("run", num_microbatches=4))
    attention, feed_forward, norms, buckets = 4 * 16 * 16, 2 * 16 * 32, 16 * (2 + 3 + 2), 32 * 2
    parameters = 1152 * 16 + 3 * attention + 2 * feed_forward + norms + 2 * buckets
    assert state_memory.device_bytes(prepared.state.parameters) == 4 * parameters
    share, logits = f"{parameters * 4 / 2**10:.1f} KiB", 2 * 16 * 1152 * 4
    enough = 4 * parameters + state_memory.device_bytes(prepared.state.optimizer) + logits
    of_logits = f"the logits ({logits / 2**20:.1f} MiB) of 2 rows, BATCH_SIZE / NUM_MICROBATCHES, "
    for machine, warning in (
        (2**17, "and here are 0.1 MiB: a run here is killed or runs"),
        (enough - 1, of_logits),
        (enough, None),
    ):
        monkeypatch.setattr(memory, "host_bytes", lambda size=machine: size)
        first, *warnings = state_memory.describe_memory(prepared)
        assert f"(parameters {share}, gradients {share}, optimiser" in first
        assert [warning in told for told in warnings] == ([] if warning is None else [True])
