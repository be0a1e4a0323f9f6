"""Tasks whose examples are single numbers, and the streams of a task."""

from switch_jax.config import DataConfig
from switch_jax.data.task_examples import TaskExamples
from switch_jax.tensorflow_setup import seqio, tf

VOCABULARY = seqio.PassThroughVocabulary(size=10**9, eos_id=1)
FEATURES = {name: seqio.Feature(VOCABULARY, add_eos=False) for name in ("inputs", "targets")}


@seqio.map_over_dataset
def parse(line):
    """A line of text, the number n, as the example with inputs [n] and targets [n]."""
    number = tf.strings.to_number(line, tf.int32)[None]
    return {"inputs": number, "targets": number}


def task_examples(task, num_streams=1, *, length=1, seed=0, shuffle=True):
    """The training examples of a task, with as many tokens of inputs as of targets."""
    config = DataConfig(
        task.name,
        {"inputs": length, "targets": length},
        data_streams=num_streams,
        random_seed=seed,
        shuffle_train_examples=shuffle,
    )
    return TaskExamples(task, config)
