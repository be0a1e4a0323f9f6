"""Data in a bucket: what a disk gives, in its order, and what a run says of faults."""

import functools
import gzip
import itertools

import pytest
import seqio

from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.reading import file_chunks
from switch_jax.data.reading.position import Cursor
from switch_jax.data.reading.sources import open_source
from switch_jax.data.train_batches import TrainBatches
from switch_jax.storage import reading
from switch_jax.tasks.english import read_lines
from switch_jax.utils.errors import TransientError, UserError
from tests.data.helpers import (
    ANLI_RECORD,
    FEATURES,
    config_of,
    lines,
    prepare,
    task_examples,
    text_of,
)
from tests.data.reading.test_order import write_archive, write_many, write_parquet, write_tfrecords
from tests.storage.copies import copy_files
from tests.storage.slow_proxy import Faults
from tests.trainer.helpers import STACKS


@pytest.mark.parametrize("write", [write_many, write_parquet, write_tfrecords, write_archive])
def test_a_bucket_gives_the_order_of_the_disk_and_resumes_in_it(
    tmp_path, bucket_path, monkeypatch, register, write
):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 1000)
    source, step = write(tmp_path)
    moved, _ = write(tmp_path, bucket_path)
    copy_files(tmp_path, bucket_path)
    # Preprocessing and shuffling are seeded by the name of the task, so both have one name.
    in_bucket = seqio.Task(
        "in_bucket",
        source=moved,
        preprocessors=[step],
        output_features=FEATURES,
    )
    disk = task_examples(register("in_bucket", source, [step]), 2).read(1, Cursor())
    expected = [(int(ex["inputs"][0]), at) for ex, at in itertools.islice(disk, 700)]
    assert len({n for n, at in expected if at.epoch == 0}) >= 460  # of 500, each once

    def read(cursor, count):
        examples = task_examples(in_bucket, 2).read(1, cursor)
        return [(int(ex["inputs"][0]), at) for ex, at in itertools.islice(examples, count)]

    assert read(Cursor(), 700) == expected
    assert read(expected[276][1], 100) == expected[277:377]


def test_in_a_bucket_too_tfds_and_seqio_give_their_order(tmp_path, bucket_path):
    records = [ANLI_RECORD | {"uid": str(n)} for n in range(100)]
    prepare(tmp_path, "anli", "r3", "0.1.0", {"train": records}, num_shards=4)
    text = f"header\n{text_of(range(50))}"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text(text)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"1\n2\n"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"3\n"))
    copy_files(tmp_path, bucket_path)
    for make in (
        lambda folder: seqio.FileDataSource(read_lines, {"train": f"{folder}/?.txt.gz"}),
        lambda folder: seqio.TextLineDataSource({"train": f"{folder}/?.txt"}, 1),
        lambda folder: seqio.TfdsDataSource("anli/r3:0.1.0", str(folder), {"train": "train[7:60]"}),
    ):
        expected = list(make(tmp_path).get_dataset("train", shuffle=False).as_numpy_iterator())
        assert len(expected) in (3, 100, 53)
        assert list(open_source(make(bucket_path), "train").as_numpy_iterator()) == expected


def test_faults_in_passing_change_nothing(bucket_path, faulty_storage, monkeypatch, register):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 100)
    (bucket_path / "x.txt").write_text(text_of(range(1000)))
    examples = task_examples(register("in_bucket", lines(bucket_path / "x.txt")))
    faults = faulty_storage.num_faults
    faulty_storage.faults = Faults(itertools.cycle([503, *[None] * 4, "lost", *[None] * 4, "cut"]))
    epoch = itertools.islice(examples.read(0, Cursor()), 1000)
    assert sorted(int(example["inputs"][0]) for example, _ in epoch) == list(range(1000))
    assert faulty_storage.num_faults > faults + 3


def test_a_storage_that_stays_away_ends_the_run_as_transient(
    bucket_path, faulty_storage, monkeypatch, register
):
    (bucket_path / "x.txt").write_text("7\n" * 1000)
    register("in_bucket", lines(bucket_path / "x.txt", "train", "validation"))
    train, held_out = (open_tasks(config_of("in_bucket", split=s)) for s in ("train", "validation"))
    retries = {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"}
    monkeypatch.setattr(reading, "TENSORSTORE_RETRIES", retries)
    # Stores of this test alone: threads that read ahead may open one when it is over.
    own_stores = functools.cache(reading.key_value_store.__wrapped__)
    monkeypatch.setattr(reading, "key_value_store", own_stores)
    faulty_storage.faults = Faults(itertools.repeat(503))
    with pytest.raises(TransientError, match=f": {bucket_path}/x.txt: .*503.*; this may"):
        next(TrainBatches(train, STACKS, 2))
    with pytest.raises(TransientError, match=f": {bucket_path}/x.txt: .*503.*; this may"):
        next(eval_batches(held_out, STACKS, 2))


def test_what_is_not_there_or_not_allowed_is_said_at_the_start(
    bucket_path, faulty_storage, register
):
    register("nowhere", lines("gs://nowhere/x*.txt"))
    with pytest.raises(UserError, match="split 'train': there is no file gs://nowhere/x"):
        open_tasks(config_of("nowhere"))
    register("missing", lines(f"{bucket_path}/x.txt"))
    with pytest.raises(UserError, match=f"split 'train': there is no file {bucket_path}/x.txt"):
        open_tasks(config_of("missing"))
    faulty_storage.faults = Faults(itertools.repeat(403))
    with pytest.raises(UserError, match="cannot be read: 403 Forbidden") as error:
        open_tasks(config_of("missing"))
    assert not isinstance(error.value, TransientError)


def test_a_run_makes_a_request_for_a_chunk_and_a_few_at_its_start(
    bucket_path, storage_proxy, monkeypatch, register
):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 1000)
    for number in range(10):
        (bucket_path / f"{number}.txt").write_text(f"{number:059}\n" * 100)
    before = len(storage_proxy.requests)
    found = register("in_bucket", lines(f"{bucket_path}/*.txt"))
    open_tasks(config_of("in_bucket"))
    epoch = (at.epoch for _, at in task_examples(found).read(0, Cursor()))
    assert len(list(itertools.takewhile(lambda number: number == 0, epoch))) == 1000
    made = [request for request in storage_proxy.requests[before:] if bucket_path.name in request]
    listings = [request for request in made if "alt=media" not in request]
    assert len(listings) == 1
    assert len(made) - len(listings) < 60 + 9 * 32  # the second epoch's first blocks
