"""Whether a config fits the tasks that it names, and whether their data can be read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switch_jax.config import Config, DataConfig
from switch_jax.config.stack import StackConfig
from switch_jax.data.catalogue.configured_tasks import (
    OpenedTasks,
    all_tasks,
    configured,
    ordered_examples,
    vocabulary_fingerprints,
    vocabulary_size,
)
from switch_jax.data.catalogue.registry import no_split, tasks_with_split
from switch_jax.data.catalogue.vocabularies import ensure_loaded, num_sentinels
from switch_jax.data.preprocessing import preprocessing_key
from switch_jax.data.reading import seqio_internals
from switch_jax.data.reading.examples import no_examples
from switch_jax.data.span_corruption.span_masking import (
    masked_spans,
    mode_word,
    row_length,
    t5_arguments,
)
from switch_jax.run_folder import RunFolder, read_run_facts
from switch_jax.runtime.multihost import is_first
from switch_jax.utils.errors import UserError, storage_error
from switch_jax.utils.tensorflow_setup import seqio, t5
from switch_jax.utils.terminal import say


def check_vocabulary(config: Config) -> list[str]:
    """Warns of a vocabulary of under half of the embedding; UserError where it does not fit."""
    ids, rows, split = vocabulary_size(config.data), config.model.num_embeddings, config.mesh.model
    vocabulary = f"the vocabulary of {config.data.mixture_or_task_name} has {ids} ids"
    if ids > rows:
        multiple = f", a multiple of MESH_MODEL = {split}" if split > 1 else ""
        raise UserError(
            f"{vocabulary}, but the model's embedding has {rows} rows; set NUM_EMBEDDINGS to "
            f"{-(-ids // split) * split} or more{multiple}"
        )
    if 2 * ids >= rows:
        return []
    return [
        f"warning: NUM_EMBEDDINGS = {rows}, and {vocabulary}: the other {rows - ids} rows of the "
        "embedding are never used"
    ]


def check_splits(config: Config) -> None:
    """Raises UserError where no registered task has a split that the run reads; opens no data."""
    # Of TfdsDataSource the property itself opens the data set.
    splits = [seqio.DataSource.splits.fget(task.source) for task in all_tasks(config.data)]
    known: set[str] = set().union(*filter(None, splits))
    for split in [config.data.split, *["validation"] * (config.run.eval_period is not None)]:
        if all(splits) and split not in known:
            raise no_split(config.data.mixture_or_task_name, split, known)


def open_tasks(config: DataConfig) -> OpenedTasks:
    """Opens a split's tasks; UserError: no such name, split or file, or lengths that do not fit."""
    found = tasks_with_split(config.mixture_or_task_name, config.split, config.use_cached_tasks)
    tasks = [configured(task, config) for task in found]
    check_tasks(tasks, config)
    opened = OpenedTasks(config, tuple(tasks))
    _ = opened.files_digests  # looks for the files
    return opened


def check_examples(opened: OpenedTasks, stacks: Sequence[StackConfig]) -> None:
    """Reads one example for each way of preprocessing, from the last task that has it.

    Raises UserError where a preprocessing step fails, no example has these lengths, or examples
    have not the features that the `stacks` of the model read, or one without a length.
    """
    lengths = opened.config.task_feature_lengths
    unused = set(lengths) if stacks else set()
    for task in {preprocessing_key(task): task for task in opened}.values():
        example = _first_example(task, opened.config, stacks)
        if example is None:
            raise no_examples(task.name, opened.config)
        needed = {stack.features[-1] for stack in stacks}
        if missing := needed - example.keys():
            raise UserError(
                f"the examples of {task.name} have {', '.join(sorted(example))}, but no "
                f"{' and no '.join(sorted(missing))}, which this model needs"
            )
        if "inputs" in example.keys() - lengths.keys():
            raise _no_length(f"the examples of {task.name} have", lengths)
        unused -= example.keys()
    if unused:
        raise _no_inputs(opened.config.mixture_or_task_name, lengths)


def _first_example(
    task: seqio.Task, config: DataConfig, stacks: Sequence[StackConfig]
) -> Mapping[str, Any] | None:
    try:
        return next(ordered_examples(task, config, stacks), None)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of a step, while the graph of the steps is made
        step = seqio_internals.failed_step(error)
        name = getattr(step, "__name__", type(step).__name__)
        where = "" if step is None else f" the step {name} fails:"
        reason = str(error).strip().split("\n")[0].split(" for '{{node")[0]
        failure = f"{where} {type(error).__name__}" + (f": {reason}" if reason else "")
        message = f"the examples of {task.name} cannot be preprocessed:{failure}"
        raise storage_error(message, error) from error


def check_tasks(tasks: Sequence[seqio.Task], config: DataConfig) -> None:
    """Raises UserError where tasks do not fit the config; looks at no data."""
    lengths = config.task_feature_lengths
    for task in tasks:
        inputs = task.output_features.get("inputs")
        if "inputs" in lengths and inputs is None:
            raise _no_inputs(task.name, lengths)
        if "inputs" not in lengths and inputs is not None and inputs.required:
            raise _no_length(f"{task.name} has", lengths)
        for feature in task.output_features.values():
            ensure_loaded(feature.vocabulary)
        _check_lengths(task, lengths)
        if task.requires_caching and not config.use_cached_tasks:
            raise UserError(
                f"{task.name} can only be read from a cache: make one with `switch_jax tasks "
                "cache`, and set USE_CACHED_TASKS to True"
            )
    _check_mode_words(tasks)


def _check_mode_words(tasks: Sequence[seqio.Task]) -> None:
    """Refuses a vocabulary that lacks the letters by which the words before inputs differ."""
    words: dict[tuple[int, ...], str] = {}
    for task in tasks:
        for word in filter(None, map(mode_word, task.preprocessors)):
            ids = tuple(task.output_features["inputs"].vocabulary.encode(word))
            other = words.setdefault(ids, word)
            if other != word:
                raise UserError(
                    f"the words {other} and {word} before the inputs of {task.name} and others are "
                    "the same tokens: the vocabulary lacks their letters; set VOCABULARY to one "
                    "that has them, for example one of bytes, 'byte'"
                )


def _no_length(found: str, lengths: Mapping[str, int]) -> UserError:
    return UserError(
        f"{found} inputs, and TASK_FEATURE_LENGTHS = {dict(lengths)} gives them no length: write "
        "{'inputs': ..., 'targets': ...}"
    )


def _no_inputs(name: str, lengths: Mapping[str, int]) -> UserError:
    return UserError(
        f"TASK_FEATURE_LENGTHS = {dict(lengths)}, and {name} has no inputs, which an encoder "
        "needs; for a model without one (NUM_ENCODER_LAYERS = 0) write {'targets': ...}"
    )


def _check_lengths(task: seqio.Task, lengths: Mapping[str, int]) -> None:
    """Checks the lengths of a task that makes its targets by t5's steps; other tasks pass."""
    t5_steps = t5.data.preprocessors
    for step in task.preprocessors:
        spans = t5_arguments(step, t5_steps.span_corruption)
        prefix = t5_arguments(step, t5_steps.prefix_lm)
        if (spans or prefix) and "inputs" not in lengths:
            raise _no_length(f"{task.name} makes", lengths)
        if spans:
            _check_span_corruption(task, lengths, step, spans)
        if prefix:
            _check_prefix_lm(task, lengths, step, prefix["noise_density"])


def _check_span_corruption(
    task: seqio.Task, lengths: Mapping[str, int], step: Any, arguments: Mapping[str, Any]
) -> None:
    """The length of the inputs determines how many tokens are masked, in how many spans.

    And so the length of the targets (section 3.1.4 of Raffel et al.,
    https://arxiv.org/abs/1910.10683). t5 itself raises a ValueError for most targets that are too
    short, but cuts them off where its estimate is 2 tokens too low (inputs of 172, 316, 352, ...),
    and takes ordinary pieces of the vocabulary where sentinels run out.
    """
    density, mean_span = arguments["noise_density"], arguments["mean_noise_span_length"]
    inputs, vocabulary = lengths["inputs"], task.output_features["inputs"].vocabulary
    tokens = row_length(arguments, inputs - len(vocabulary.encode(mode_word(step))))
    masked, spans = masked_spans(tokens, density, mean_span)
    sentinels = num_sentinels(vocabulary)
    if not 1 <= spans <= sentinels:
        raise UserError(
            f"inputs of length {inputs} do not fit {task.name}: it masks {spans} spans in them, "
            f"and its vocabulary has {sentinels} sentinels"
        )
    targets = masked + spans + 1
    if lengths["targets"] < targets:
        raise UserError(
            f"targets of length {lengths['targets']} are too short for {task.name}: in inputs of "
            f"length {inputs} it masks {masked} of {tokens} tokens in {spans} spans, which takes "
            f"{masked} + {spans} + 1 = {targets}"
        )


def _check_prefix_lm(
    task: seqio.Task, lengths: Mapping[str, int], step: Any, density: float
) -> None:
    """The inputs are a beginning of a row of text, which would fit into them, the targets the rest.

    t5 cuts targets off that are longer.
    """
    inputs, feature = lengths["inputs"], task.output_features["inputs"]
    tokens = inputs - len(feature.vocabulary.encode(mode_word(step))) - feature.add_eos
    if tokens < 2:
        raise UserError(f"inputs of length {inputs} are too short for {task.name}")
    first = max(1, round((1 - 2 * density) * (tokens - 1)))  # tokens of the shortest beginning
    targets = tokens - first + task.output_features["targets"].add_eos
    if lengths["targets"] < targets:
        raise UserError(
            f"targets of length {lengths['targets']} are too short for {task.name}: in inputs of "
            f"length {inputs} it divides rows of {tokens} tokens, whose second parts take up to "
            f"{targets}"
        )


def check_streams(config: Config, readers: int) -> list[str]:
    """Warns where hosts outnumber streams; UserError where streams do not divide the batch."""
    streams, batch_size = config.data.data_streams, config.run.batch_size
    if batch_size % streams:
        raise UserError(
            f"batch size {batch_size} does not divide over {streams} streams of data; set "
            f"DATA_STREAMS to a divisor of {batch_size}"
        )
    if readers <= streams:
        return []
    return [
        f"warning: DATA_STREAMS = {streams}, and hosts split the batch into {readers} parts: each "
        f"reads the {config.tokens_read(readers):,} tokens of a whole stream, and uses "
        f"{config.tokens_per_step // readers:,} of them; a run keeps its DATA_STREAMS, and one "
        f"that is begun with {readers} reads them once"
    ]


def check_vocabularies_of_run(model_dir: Path, data: DataConfig) -> bool:
    """Raises UserError if the data have other vocabularies than those that a run was trained with.

    Returns False, and says so in one line, where its run.json does not name them. Raises
    TransientError where that file cannot be read.
    """
    folder = RunFolder(model_dir)
    facts, problem = read_run_facts(folder)
    trained_with = facts.get("vocabulary")
    if not isinstance(trained_with, dict):
        if is_first():
            say(
                f"warning: {problem or f'{folder.description} names no vocabulary'}: whether the "
                f"model was trained with the vocabulary of {data.mixture_or_task_name} cannot be "
                "checked"
            )
        return False
    for name, vocabulary in vocabulary_fingerprints(data).items():
        expected = trained_with.get(name, vocabulary)
        if vocabulary != expected:
            raise UserError(
                f"the {name} of {data.mixture_or_task_name} have another vocabulary "
                f"({vocabulary}) than {model_dir} was trained with ({expected}), so their ids "
                "would stand for other words"
            )
    return True
