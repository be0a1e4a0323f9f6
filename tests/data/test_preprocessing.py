"""Tasks with the same preprocessing share a graph, and nothing else."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import seqio
import tensorflow as tf

from switch_jax.data.catalogue.checks import check_examples, open_tasks
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.train_batches import TrainBatches
from tests.data.helpers import assert_same, config_of, lines, validation
from tests.trainer.helpers import STACKS

SPLITS = ("train", "validation")


def counted(factor=1):
    """A step that reads a number and multiplies it; `calls` grows when it is traced."""

    def step(dataset):
        step.calls += 1
        numbers = dataset.map(lambda line: factor * tf.strings.to_number(line, tf.int32)[None])
        return numbers.map(lambda number: {"inputs": number, "targets": number})

    step.calls = 0
    return step


def test_a_step_is_traced_once_for_many_tasks_and_each_reads_its_own_file(tmp_path, register):
    step = counted()
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"{10 + i}\n" * 3)
        register(f"alike_{i}", lines(tmp_path / f"{i}.txt", *SPLITS), [step])
    register.mixture("alike", [f"alike_{i}" for i in range(6)])
    config = config_of("alike", 3, pack=False, data_streams=2)
    check_examples(open_tasks(config), STACKS)
    assert step.calls == 1  # in the order of the source
    found = {
        int(number)
        for batch, _ in itertools.islice(TrainBatches(open_tasks(config), STACKS, 8), 8)
        for number in batch["encoder_input_tokens"][:, 0]
    }
    assert found == set(range(10, 16))
    assert step.calls == 2  # in blocks
    (batch,) = eval_batches(validation(config), STACKS, 20)
    np.testing.assert_array_equal(
        batch["encoder_input_tokens"][:18, 0], np.repeat(np.arange(10, 16), 3)
    )
    assert step.calls == 2
    # A task with another step shares nothing.
    register("doubled", lines(tmp_path / "0.txt", *SPLITS), [counted(2)])
    doubled = config_of("doubled", 3, pack=False)
    batch, _ = next(TrainBatches(open_tasks(doubled), STACKS, 1))
    for found in (batch, next(eval_batches(validation(doubled), STACKS, 1))):
        assert found["encoder_input_tokens"][0, 0] == 20


def drawn():
    """A step that makes a random number of each line, and takes its time over its tracing."""

    @seqio.map_over_dataset(num_seeds=1)
    def draw(_, seed):
        number = tf.random.stateless_uniform([1], seed, 2, 10**6, tf.int32)
        return {"inputs": number, "targets": number}

    def step(dataset):
        time.sleep(0.05)  # meanwhile the other thread begins
        return draw(dataset)

    return step


def test_random_numbers_of_tasks_that_are_read_in_threads_are_those_of_reading_one_by_one(
    tmp_path, register
):
    (tmp_path / "lines.txt").write_text("a\nb\nc\n")
    batches = {}
    for way in ("alone", "together"):
        names = [f"{way}_{i}" for i in range(4)]
        for name in names:
            register(name, lines(tmp_path / "lines.txt", "validation"), [drawn()])
        opened = [validation(config_of(name, 3)) for name in names]
        with ThreadPoolExecutor(1 if way == "alone" else 2) as threads:
            batches[way] = list(
                threads.map(lambda tasks: next(eval_batches(tasks, STACKS, 3)), opened)
            )
    for one, other in zip(batches["alone"], batches["together"], strict=True):
        assert_same(one, other)
