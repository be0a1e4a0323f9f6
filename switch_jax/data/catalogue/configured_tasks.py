"""The tasks that a config names, with its vocabulary; and one pass over a task."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from switch_jax.config import DataConfig
from switch_jax.config.stack import StackConfig
from switch_jax.data.catalogue.registry import get_tasks
from switch_jax.data.catalogue.vocabularies import ensure_loaded, fingerprint, with_vocabulary
from switch_jax.data.preprocessing import ordered_graph
from switch_jax.data.reading.examples import has_tokens, read_examples
from switch_jax.data.reading.sources import data_source, files_digest, open_source
from switch_jax.storage import local_paths, storage_path
from switch_jax.tasks.c4_files import C4Files
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio, tf

# Evaluation masks the same spans whatever the seed of the run, so that runs can be compared.
EVAL_SEED = 0


@dataclasses.dataclass(frozen=True)
class OpenedTasks:
    """The tasks of one split that `checks.open_tasks` has checked, with the config's vocabulary."""

    config: DataConfig
    tasks: tuple[seqio.Task, ...]  # the task, or those of the mixture that have the split

    def __iter__(self) -> Iterator[seqio.Task]:
        return iter(self.tasks)

    @property
    def names(self) -> list[str]:
        return [task.name for task in self.tasks]

    @functools.cached_property
    def files_digests(self) -> dict[str, str]:
        """Returns `sources.files_digest` of each task, by name."""
        split, use_cached = self.config.split, self.config.use_cached_tasks
        return {task.name: files_digest(task, split, use_cached) for task in self.tasks}

    def only(self, name: str) -> "OpenedTasks":
        """Returns one of the tasks alone."""
        config = dataclasses.replace(self.config, mixture_or_task_name=name)
        return OpenedTasks(config, tuple(task for task in self.tasks if task.name == name))


def configured(task: seqio.Task, config: DataConfig) -> seqio.Task:
    """The task with the config's vocabulary, and with the folder of its files; looks at no data."""
    task = with_vocabulary(task, config.vocabulary)
    return task if config.use_cached_tasks else with_folder(task, config.c4_json_dir)


def with_folder(task: seqio.Task, c4_json_dir: str | None) -> seqio.Task:
    """A task of allenai/c4's files with their folder, others as they are; UserError: it is None."""
    if not isinstance(task.source, C4Files):
        return task
    if c4_json_dir is None:
        raise UserError(
            f"{task.name} reads files of allenai/c4, but C4_JSON_DIR is not set: write "
            "--gin.C4_JSON_DIR=DIR, the folder or bucket that has en/ or multilingual/ "
            "(`switch_jax tasks` has --c4_json_dir)"
        )
    return task.replace(source=task.source.in_folder(str(storage_path(c4_json_dir, "C4_JSON_DIR"))))


def all_tasks(config: DataConfig) -> list[seqio.Task]:
    """The task, or those of the mixture, each `configured`; looks at no data."""
    return [configured(task, config) for task in get_tasks(config.mixture_or_task_name)]


def vocabularies(config: DataConfig) -> dict[str, seqio.Vocabulary]:
    """Returns the vocabularies by feature, the same in all tasks of a mixture; raises UserError."""
    task = all_tasks(config)[0]
    return {name: ensure_loaded(f.vocabulary) for name, f in task.output_features.items()}


def vocabulary_fingerprints(config: DataConfig) -> dict[str, str]:
    """Returns `vocabularies.fingerprint` of the vocabularies by feature; looks at no data."""
    return {name: fingerprint(found) for name, found in vocabularies(config).items()}


def vocabulary_is_here(config: DataConfig) -> bool:
    """Whether no file of a vocabulary is in a bucket."""
    features = [feature for task in all_tasks(config) for feature in task.output_features.values()]
    files = [str(getattr(f.vocabulary, "sentencepiece_model_file", "")) for f in features]
    return local_paths(files) == files


def vocabulary_size(config: DataConfig) -> int:
    """Number of token ids that the features need, sentinels included; see `ensure_loaded`."""
    return max(
        ensure_loaded(feature.vocabulary).vocab_size
        for task in all_tasks(config)
        for feature in task.output_features.values()
    )


def ordered_dataset(
    task: seqio.Task, config: DataConfig, lengths: Mapping[str, int]
) -> tf.data.Dataset:
    """The preprocessed examples of one pass: not shuffled, masked alike whatever the run's seed."""
    cached = config.use_cached_tasks and task.supports_caching
    source = open_source(data_source(task, config.split, cached), config.split, seed=EVAL_SEED)
    return ordered_graph(task, lengths, cached, EVAL_SEED)(source)


def ordered_examples(
    task: seqio.Task, config: DataConfig, stacks: Sequence[StackConfig]
) -> Iterator[dict[str, Any]]:
    """The examples of `ordered_dataset` that `has_tokens`; nothing is opened before the first."""
    dataset = ordered_dataset(task, config, config.task_feature_lengths)
    undeclared = {"inputs", "targets"} - task.output_features.keys()  # text that is no feature
    for example in read_examples(dataset, task, config.split, config.use_cached_tasks):
        for name in undeclared & example.keys():
            del example[name]
        if has_tokens(example, stacks):
            yield example
