"""What a run reads, and how it is laid out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from switch_jax.utils.errors import FieldError
from switch_jax.utils.fields import Inherited, Range, Seed, With, check_fields, short_repr

MAX_LENGTH = 2**16  # tokens of a row's inputs, and of its targets


@dataclass(frozen=True)
class DataConfig:
    """What to read, and how to arrange it in batches.

    Attributes:
      mixture_or_task_name: a registered seqio task or mixture; or a mixture written as rates,
        'my_task=3, c4_span_corruption=1'.
      task_feature_lengths: tokens in a row, including EOS: {'inputs': ..., 'targets': ...}. A
        language model reads inputs and targets in one row, as long as both together; for a task
        without inputs it takes {'targets': ...}.
      split: the split to train on.
      pack: put several short examples into one row.
      shuffle_train_examples: shuffle the training examples.
      random_seed: seed of the data: their order, the mixing of tasks and the masked spans.
      data_streams: the number of independent streams of data, each of which gives an equal part of
        the rows of a batch. At most so many processes share the reading. The order of the data
        depends on it, so a run keeps its number.
      use_cached_tasks: read the caches that `switch_jax tasks cache` wrote instead of the sources.
      vocabulary: 't5', 'mt5', 'byte' or the path of a SentencePiece model, for all features; None
        keeps the vocabularies of the task.
      c4_json_dir: the folder or bucket with a copy of allenai/c4, en/ and multilingual/, for tasks
        that read C4 or mC4 as JSON.
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int]
    split: str = "train"
    pack: bool = True
    shuffle_train_examples: bool = True
    random_seed: Seed = 0
    data_streams: Annotated[int, Range(1, 4096)] = 1
    use_cached_tasks: bool = False
    # The ids in a cache are those of the vocabulary that it was made with.
    vocabulary: Annotated[str | None, With("use_cached_tasks", (False,)), Inherited()] = None
    c4_json_dir: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for feature, tokens in self.task_feature_lengths.items():
            if tokens > MAX_LENGTH:
                raise FieldError(
                    "task_feature_lengths",
                    f"= {short_repr(dict(self.task_feature_lengths))}: {feature} must be at most "
                    f"{MAX_LENGTH:,} tokens",
                )
        lengths = self.task_feature_lengths
        is_known = set(lengths) in ({"inputs", "targets"}, {"targets"})
        if not is_known or min(lengths.values()) < 1:
            raise FieldError(
                "task_feature_lengths",
                f"= {dict(lengths)}: give 'inputs' and 'targets', or 'targets' alone to a model "
                "without an encoder, each a positive number of tokens, for example {'inputs': "
                "128, 'targets': 32}",
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of a row's inputs, where it has some, and of its targets."""
        lengths = self.task_feature_lengths
        return tuple(lengths[name] for name in ("inputs", "targets") if name in lengths)
