"""C4 and mC4 from the files of allenai/c4, beside what TFDS gives of the same pages."""

import gzip
import itertools
import json
from collections import Counter

import pytest
import seqio

from switch_jax.cli import main
from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.catalogue.configured_tasks import ordered_examples
from switch_jax.data.catalogue.registry import get_tasks
from switch_jax.data.catalogue.vocabulary_training import lines
from switch_jax.data.reading.file_chunks import TextLines
from switch_jax.data.reading.sources import open_source, source_files
from switch_jax.data.train_batches import TrainBatches
from switch_jax.gin_config import read
from switch_jax.utils.errors import UserError
from tests.cli.mistakes import refused
from tests.data.helpers import assert_same, prepare
from tests.tasks.records import rates_of
from tests.trainer.helpers import ONE_STACK, STACKS

LENGTHS = {"inputs": 64, "targets": 32}
# What JSON writes with escapes, and what it need not: quotes, line ends, other scripts.
ODD = 'He said: "C:\\new\\table"\n\tand\r\nwent. \u2028Ünïcödé שלום 🙂 </s> \x7f'
PAGES = {
    "train": [f"{ODD} Page {number} of some." for number in range(60)],
    "validation": [f"{ODD} Another page {number}." for number in range(6)],
}
SHARDS = 3  # of the training pages


def files(folder, name, pages, shards, **json_options):
    """Writes pages as allenai/c4 has them, in gzipped files."""
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        rows = [
            {"text": page, "timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org/a"}
            for page in pages[shard::shards]
        ]
        text = "".join(json.dumps(row, **json_options) + "\n" for row in rows)
        file = folder / f"{name}{shard:05}-of-{shards:05}.json.gz"
        file.write_bytes(gzip.compress(text.encode()))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of allenai/c4 with few pages, in English and in two other languages."""
    folder = tmp_path_factory.mktemp("c4")
    for split, pages in PAGES.items():
        files(folder / "en", f"c4-{split}.", pages, SHARDS if split == "train" else 1)
    for code in ("zh", "zh-Latn"):
        for split, pages in PAGES.items():
            end = "" if split == "train" else "-validation"
            marked = [f"{code}: {page}" for page in pages]
            name = f"c4-{code}{end}.tfrecord-"
            files(folder / "multilingual", name, marked, 2, ensure_ascii=False)
    return folder


def config_of(name, folder, **options):
    options = {"vocabulary": "byte", "c4_json_dir": str(folder)} | options
    return DataConfig(name, options.pop("lengths", LENGTHS), **options)


def records(task, split="train"):
    return list(open_source(task.source, split).as_numpy_iterator())


def decompress(folder, target):
    """Writes the files of `folder` into another one, without compression."""
    (target / "en").mkdir(parents=True)
    for file in (folder / "en").iterdir():
        (target / "en" / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    return target


def test_a_page_has_the_text_that_tfds_gives_and_makes_the_same_examples(copy, tmp_path):
    prepare(tmp_path, "c4", "en", "3.1.0", {s: [{"text": p} for p in PAGES[s]] for s in PAGES})
    source = seqio.TfdsDataSource("c4/en:3.1.0", tfds_data_dir=str(tmp_path))
    for split, pages in PAGES.items():
        (task,) = open_tasks(config_of("c4_json_span_corruption", copy, split=split))
        found = [record["text"] for record in records(task, split)]
        assert Counter(found) == Counter(page.encode() for page in pages)
        prepared = [record["text"] for record in open_source(source, split).as_numpy_iterator()]
        assert Counter(found) == Counter(prepared)
    for objective in ("span_corruption", "prefix_lm", "full_lm"):
        (from_json,), (from_tfds,) = map(get_tasks, (f"c4_json_{objective}", f"c4_{objective}"))
        assert from_json.preprocessors == from_tfds.preprocessors
        assert from_json.output_features == from_tfds.output_features


@pytest.mark.parametrize("form", ["gzipped", "decompressed", "both"])
def test_a_run_trains_on_each_page_and_goes_on_exactly(copy, tmp_path, form):
    folder = copy if form == "gzipped" else decompress(copy, tmp_path / "c4")
    if form == "both":  # one file of each
        plain = sorted((folder / "en").glob("c4-train.*.json"))
        plain[1].unlink()
        for file in (copy / "en").glob("c4-train.*"):
            (folder / "en" / file.name).write_bytes(file.read_bytes())
    config = config_of("c4_json_full_lm", folder, lengths={"targets": 128}, data_streams=3)
    opened = open_tasks(config)
    (task,) = opened
    cut = {"gzipped": False, "decompressed": True, "both": False}[form]
    assert isinstance(source_files(task.source, "train").format, TextLines) == cut
    batches = list(itertools.islice(TrainBatches(opened, ONE_STACK, 6), 20))
    again = TrainBatches(opened, ONE_STACK, 6, batches[7][1])
    for (batch, _), (other, _) in zip(batches[8:], again, strict=False):
        assert_same(batch, other)
    texts = [text.rstrip("\n") for text in lines("c4_json_full_lm", "train", 60, str(folder))]
    assert sum(text.startswith("went.") for text in texts) == len(PAGES["train"])


def test_a_run_may_move_from_gzipped_files_in_one_folder_to_a_copy_of_them(copy, tmp_path):
    (tmp_path / "en").mkdir()
    for file in (copy / "en").iterdir():
        (tmp_path / "en" / file.name).write_bytes(file.read_bytes())
    here, there = (
        open_tasks(config_of("c4_json_full_lm", folder, lengths={"targets": 64}))
        for folder in (copy, tmp_path)
    )
    assert here.files_digests == there.files_digests


def test_languages_of_mc4_have_their_own_files_and_mc4_s_rates(copy):
    for objective in ("", "_prefix_lm", "_full_lm"):
        rates = rates_of(f"mc4_json{objective}")
        assert {name.replace("mc4_json", "mc4"): rate for name, rate in rates.items()} == rates_of(
            f"mc4{objective}"
        )
    for code in ("zh", "zh-Latn"):
        name = f"mc4_json.{code.replace('-', '_')}"
        for split, pages in PAGES.items():
            (task,) = open_tasks(config_of(name, copy, split=split))
            found = Counter(record["text"].decode() for record in records(task, split))
            assert found == Counter(f"{code}: {page}" for page in pages)
    opened = open_tasks(config_of("mc4_json.zh=1, mc4_json.zh_Latn=2", copy))
    assert next(TrainBatches(opened, STACKS, 4))[0]["encoder_input_tokens"].shape == (4, 64)
    with pytest.raises(UserError, match="mc4_json.af, split 'train': there is no file .*/c4-af.tf"):
        open_tasks(config_of("mc4_json", copy))


def test_the_folder_is_a_macro_and_a_task_without_it_is_refused(copy, capsys):
    bindings = [
        "MODEL_DIR=/none", "MIXTURE_OR_TASK_NAME=c4_json_prefix_lm", "VOCABULARY=byte",
        "TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 64}",
    ]  # fmt: skip
    files = ["models/switch_demo.gin", "runs/pretrain.gin"]
    config = read(files, [*bindings, f"C4_JSON_DIR={copy}"]).config
    (task,) = open_tasks(config.data)
    assert next(ordered_examples(task, config.data, STACKS))["inputs"].size > 1
    refusal = "c4_json_prefix_lm reads files of allenai/c4, but C4_JSON_DIR is not set: write --gin"
    with pytest.raises(UserError, match=refusal):
        open_tasks(read(files, bindings).config.data)
    flags = [f"--gin_file={file}" for file in files] + [f"--gin.{x}" for x in bindings]
    assert refusal in refused(capsys, "train", *flags, "--dry_run")
    assert refusal in refused(capsys, "tasks", "c4_json_prefix_lm", "--vocabulary=byte")


def test_the_command_shows_and_lists_what_is_in_the_folder(copy, capsys):
    flags = [f"--c4_json_dir={copy}", "--vocabulary=byte", "--examples=1"]
    assert main(["tasks", "c4_json_full_lm", *flags]) == 0
    assert capsys.readouterr().out.startswith("c4_json_full_lm, validation, example 1\n")
    assert main(["tasks", "*c4_json*", flags[0]]) == 0
    here, _, rest = capsys.readouterr().out.partition("not here")
    names = {line.split()[0] for line in here.splitlines()[1:] if line}
    assert {"c4_json_full_lm", "c4_json_ul2", "mc4_json.zh_Latn", "mc4_json_full_lm.zh"} <= names
    assert "mc4_json.af," in rest
    assert main(["tasks", "c4_json_*"]) == 0
    assert "can be read here" not in capsys.readouterr().out


def test_a_file_that_was_cut_off_ends_the_run_with_its_name(copy, tmp_path):
    (tmp_path / "en").mkdir()
    for file in (copy / "en").iterdir():
        content = file.read_bytes()
        end = -40 if "train.00001" in file.name else None
        (tmp_path / "en" / file.name).write_bytes(content[:end])
    opened = open_tasks(config_of("c4_json_span_corruption", tmp_path))
    with pytest.raises(UserError, match="split 'train': .*c4-train.00001-of-00003.json.gz"):
        for _ in itertools.islice(TrainBatches(opened, STACKS, 4), 100):
            pass


def test_a_pointer_of_git_lfs_is_refused_before_the_start(copy, tmp_path, capsys):
    """A clone without git-lfs has such files; a training file that is read late is one of them."""
    (tmp_path / "en").mkdir()
    for file in (copy / "en").iterdir():
        (tmp_path / "en" / file.name).write_bytes(file.read_bytes())
    pointer = tmp_path / "en/c4-train.00002-of-00003.json.gz"
    pointer.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'8e' * 32}\nsize 318837206\n"
    )
    flags = [f"--c4_json_dir={tmp_path}", "--vocabulary=byte", "--split=train", "--examples=1"]
    message = refused(capsys, "tasks", "c4_json_full_lm", *flags)
    assert f"split 'train': {pointer} is a pointer of git-lfs, and not the file itself" in message
    pointer.unlink()
    assert main(["tasks", "c4_json_full_lm", *flags]) == 0
