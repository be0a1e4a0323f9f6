"""What a run reads, and how it is laid out."""

from collections.abc import Mapping
from dataclasses import dataclass

from switch_jax.errors import FieldError, UserError
from switch_jax.fields import SEED, Range, check_fields, shown

MOST_TOKENS = 2**16  # of a row's inputs, and of its targets
_MOST_STREAMS = 4096


@dataclass(frozen=True)
class DataConfig:
    """What to read and how to lay it out.

    Attributes:
      mixture_or_task_name: a registered seqio task or mixture.
      task_feature_lengths: tokens in a row, EOS included: {'inputs': ..., 'targets': ...}.
      split: split of the task that is trained on.
      pack: put several short examples into one row.
      shuffle: shuffle the training examples.
      seed: seed of the order, the mixing and the masked spans.
      num_streams: K, the number of independent streams that make up each batch, B / K rows each. At
        most K hosts can share the reading. Another number gives another order of the data, so a
        run cannot change it.
      use_cached: read the cache that `switch_jax tasks cache` wrote, not the source.
      vocabulary: used for all features: 't5', 'mt5', 'byte' or the path of a SentencePiece model;
        None = that of the task.
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int]
    split: str = "train"
    pack: bool = True
    shuffle: bool = True
    seed: int = 0
    num_streams: int = 1
    use_cached: bool = False
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        """Raises FieldError on values of another type, and on numbers that make no sense."""
        check_fields(self, seed=SEED, num_streams=Range(1, _MOST_STREAMS))
        for feature, tokens in self.task_feature_lengths.items():
            if tokens > MOST_TOKENS:
                raise FieldError(
                    "task_feature_lengths",
                    f"= {shown(dict(self.task_feature_lengths))}: {feature} must be at most "
                    f"{MOST_TOKENS:,} tokens",
                )
        lengths = self.task_feature_lengths
        if set(lengths) != {"inputs", "targets"} or min(lengths.values()) < 1:
            raise UserError(
                f"task_feature_lengths is {dict(lengths)}: give 'inputs' and 'targets', each a "
                "positive number of tokens, for example {'inputs': 128, 'targets': 32}"
            )
        if self.use_cached and self.vocabulary is not None:
            raise UserError(
                f"VOCABULARY = {self.vocabulary!r} with USE_CACHED_TASKS = True: the ids in a "
                "cache are those of the vocabulary that it was made with; set one of them to None "
                "or False"
            )

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of a row's inputs, and of its targets."""
        return self.task_feature_lengths["inputs"], self.task_feature_lengths["targets"]
