"""Mistakes in a run that the slices, the disk or the compiler would show an hour later."""

import re
from pathlib import Path

import pytest
import seqio

from switch_jax.cli import main
from switch_jax.launch import google_cloud
from switch_jax.launch.targets.tpu_vm import TpuVm
from switch_jax.planning import plan
from switch_jax.tasks import english
from switch_jax.tasks.building_blocks import SPAN_CORRUPTION, add_text_task
from tests.cli.mistakes import refused
from tests.launch.jobs import DEMO, LARGE_TABLE, ON_VM, PRETRAIN

RUN = [*ON_VM, *DEMO]


def run(capsys, *arguments):
    """Exit code and standard error."""
    return main([*RUN, *arguments]), capsys.readouterr().err


def test_a_run_without_a_mistake_is_shown(capsys):
    code, said = run(capsys, "--dry_run")
    assert code == 0 and said.count("note: ") == 1
    assert "note: a dry run does not look whether the step fits" in said
    assert run(capsys, "--dry_run", "--skip_plan") == (0, "")


def test_a_state_that_fits_when_it_is_split_is_not_refused(capsys):
    split = ["--gin.MESH_DATA=1", "--gin.MESH_MODEL=2"]
    code, told = run(capsys, "--dry_run", "--skip_plan", *split, *LARGE_TABLE)
    assert code == 0
    (line,) = told.splitlines()  # of the rows that the vocabulary does not fill
    assert line.startswith("switch_jax launch: warning: NUM_EMBEDDINGS = 16777216, and the vocab")


def test_what_needs_no_network_is_checked_without_it(capsys, tmp_path):
    """A batch of 2,048 rows over 32 hosts, and a task whose files are in a bucket."""
    (tmp_path / "mine.gin").write_text(
        f"import launched_splits\n{PRETRAIN}MIXTURE_OR_TASK_NAME = 'launched_splits'\n"
        "MESH_EXPERT = 128\nBATCH_SIZE = 2048\n"
    )
    (tmp_path / "launched_splits.py").write_text(TASK)
    cloud = [*ON_VM, "--gin_file=mine.gin", "--topology=v5p-256", "--dry_run", "--skip_storage"]
    try:
        assert "launched_splits has no split 'validation'" in refused(capsys, *cloud)
        assert main([*cloud, "--gin.EVAL_PERIOD=None"]) == 0
        warnings = [m for m in capsys.readouterr().err.splitlines() if "note: " not in m]
        streams, rows = (m.removeprefix("switch_jax launch: warning: ") for m in warnings)
        assert streams.startswith("DATA_STREAMS = 8, and hosts split the batch into 32 parts: ")
        assert rows.startswith("NUM_EMBEDDINGS = 32128, and the vocabulary of launched_splits has ")
    finally:
        seqio.TaskRegistry.remove("launched_splits")


TASK = """
import seqio
from switch_jax.tasks import english

seqio.TaskRegistry.add(
    "launched_splits",
    source=seqio.TextLineDataSource({"train": "gs://my-data/train-*.txt"}),
    preprocessors=[],
    output_features=dict.fromkeys(("inputs", "targets"), seqio.Feature(english.VOCABULARY)),
)
"""


@pytest.fixture
def started(monkeypatch):
    """The jobs that would have been started; none is."""
    jobs = []
    monkeypatch.setattr(TpuVm, "start_and_follow", lambda self: jobs.append(self.job_name) or 0)
    monkeypatch.setattr(google_cloud, "check_programs", lambda steps: None)
    return jobs


def planned(monkeypatch, gibibytes, tokens_per_second):
    """Fakes a compiled program of so much memory; None tokens: it does not fit."""

    class Plan:
        fits = tokens_per_second is not None
        hbm_bytes_per_chip, hbm_limit_bytes = gibibytes * 2**30, 16 * 2**30

    Plan.tokens_per_second = tokens_per_second
    Plan.train_steps, Plan.chip_hours = 550_000, 1000.5
    monkeypatch.setattr(plan, "make_plan", lambda config, hardware: Plan())


def test_tools_are_looked_for_before_minutes_of_compiling(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    code, told = run(capsys)
    assert code == 2
    assert "there is no gcloud here (docs/launch_targets.md)" in told


def test_what_does_not_fit_is_not_started(started, monkeypatch, capsys):
    planned(monkeypatch, 20.5, None)
    code, told = run(capsys)
    assert (code, started) == (2, [])
    assert "does not fit on v5e-16: 20.5 of 16.0 GiB a chip" in told and "--skip_plan" in told
    assert run(capsys, "--skip_plan")[0] == 0
    assert started == ["demo"]


def test_what_fits_is_started_and_its_speed_told(started, monkeypatch, capsys):
    planned(monkeypatch, 12.25, 1_234_567.0)
    code, told = run(capsys)
    assert (code, started) == (0, ["demo"])
    assert "the step fits on v5e-16: 12.2 of 16.0 GiB a chip, 1,234,567 tokens/s" in told


def test_what_an_hour_and_the_run_cost_is_told(started, monkeypatch, capsys):
    """Of the run only by compiling the step."""
    planned(monkeypatch, 12.25, 1_234_567.0)
    price = [*RUN, "--price_per_chip_hour=1.2"]
    for also in ([], ["--dry_run"]):
        assert main([*price, *also]) == 0
        told = capsys.readouterr()
        assert "# demo: 16 chips, 4 hosts (v5e-16), 19.20 USD an hour\n" in told.out
        assert "1,234,567 tokens/s; 550,000 steps cost 1,200.60 USD\n" in told.err
    assert started == ["demo"]
    assert main([*price, "--dry_run", "--skip_plan"]) == 0
    told = capsys.readouterr()
    assert "19.20 USD an hour" in told.out and "cost" not in told.err
    assert main([*RUN, "--price_per_chip_hour=0", "--dry_run", "--skip_plan"]) == 0
    assert ", 0.00 USD an hour\n" in capsys.readouterr().out
    assert "write a price in USD, 0 or more" in refused(capsys, *RUN, "--price_per_chip_hour=nan")


@pytest.mark.parametrize("tag", ["main", "Nightly", "stable"])
def test_a_tag_that_moves_is_warned_of(tag, capsys):
    image = "us-docker.pkg.dev/my-project/images/switch_jax"
    _, told = run(capsys, "--dry_run", "--skip_plan", f"--image={image}:{tag}")
    assert f"warning: --image={image}:{tag}: a tag such as {tag} often moves" in told
    assert "@sha256:DIGEST" in told
    for stays in (":2026-12-04", f"@sha256:{'0' * 64}", ":main-1"):
        assert run(capsys, "--dry_run", "--skip_plan", f"--image={image}{stays}") == (0, "")


def test_ctrl_c_ends_this_command_and_not_the_job(started, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    said = "demo goes on; `gcloud alpha compute tpus tpu-vm ssh demo --worker=all .* ends it; the"
    monkeypatch.setattr(TpuVm, "start_and_follow", interrupted)
    code, told = run(capsys, "--skip_plan")
    assert code == 130
    assert re.search(said, told), told


def test_folder_and_data_are_looked_at_before_anything_is_made(
    started, monkeypatch, capsys, tmp_path, bucket_path
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    here = f"--gin.MODEL_DIR={bucket_path}"
    code, told = run(capsys, "--dry_run", here)
    assert code == 0, told
    data = "--gin.MIXTURE_OR_TASK_NAME=anli_r1"
    code, told = run(capsys, "--skip_plan", here, data)
    assert (code, started) == (2, [])
    assert "anli/r1:0.1.0, which is not in " in told.splitlines()[-1]
    assert not bucket_path.exists()
    assert run(capsys, "--skip_plan", "--skip_storage", here, data)[0] == 0
    assert started == ["demo"]


def test_a_small_vocabulary_in_a_bucket_is_warned_of_once(capsys, bucket_path):
    own = bucket_path / "own.model"
    own.write_bytes(Path(english.VOCABULARY.sentencepiece_model_file).read_bytes())
    files = {split: str(english.DATA / f"bible.{split}.txt.gz") for split in english.SPLITS}
    source = seqio.FileDataSource(english.read_lines, files)
    vocabulary = seqio.SentencePieceVocabulary(str(own), extra_ids=100)
    add_text_task("own_vocabulary", SPAN_CORRUPTION, source, vocabulary)
    flags = ["--dry_run", "--skip_plan", f"--gin.MODEL_DIR={bucket_path}/run"]
    flags += ["--gin.MIXTURE_OR_TASK_NAME=own_vocabulary", "--gin.NUM_EMBEDDINGS=4096"]
    try:
        for skip, warnings in ((["--skip_storage"], 0), ([], 1)):
            code, told = run(capsys, *flags, *skip)
            assert (code, told.count("warning: NUM_EMBEDDINGS = 4096")) == (0, warnings), told
    finally:
        seqio.TaskRegistry.remove("own_vocabulary")


def test_what_this_machine_may_not_do_is_told_once(capsys, gcs_server):
    flags = ["--gin.MODEL_DIR=gs://no-such-bucket/a", "--gin.INITIAL_CHECKPOINT_PATH=gs://other/b"]
    code, told = run(capsys, "--dry_run", *flags)
    assert code == 2
    (line,) = [line for line in told.splitlines() if "note: " not in line]
    assert "MODEL_DIR 'gs://no-such-bucket/a' cannot be written: " in line
    assert line.count(";") == 0
