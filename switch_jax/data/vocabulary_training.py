"""SentencePiece vocabularies from the text of a task or mixture."""

import functools
import io
import re
from collections.abc import Iterator, Sequence

import sentencepiece
import seqio
import tensorflow as tf

from switch_jax.data import seqio_private
from switch_jax.data.registry import mixing_rates, tasks_with_split
from switch_jax.errors import UserError, storage_error

MOST_PIECES = 2**20
# SentencePiece leaves out lines that are longer, in bytes; its own limit is 4192.
_LONGEST_LINE = 65536


def lines(name: str, split: str, examples: int) -> Iterator[str]:
    """The lines of text of a task or mixture, before they are tokenised; the same in every call.

    Args:
      name: a registered task or mixture.
      split: split to read.
      examples: most of the source to read; a mixture's are shared out by its rates.

    Raises:
      UserError: unknown name or split, data that are not there, or a task that has no text.
    """
    tasks = tasks_with_split(name, split)
    rates = mixing_rates(name, tasks)
    steps = [_steps_before_tokens(task) for task in tasks]
    for task, before, rate in zip(tasks, steps, rates, strict=True):
        with seqio.map_seed_manager(0):
            dataset = task.source.get_dataset(split, shuffle=False)
            dataset = seqio_private.preprocess(task, dataset, before)
        for example in dataset.take(round(examples * rate / sum(rates))).as_numpy_iterator():
            for feature in task.output_features:
                yield from _lines_of(example.get(feature))


def _steps_before_tokens(task: seqio.Task) -> list:
    tokenizers = (seqio.preprocessors.tokenize, seqio.preprocessors.tokenize_and_append_eos)
    for number, step in enumerate(task.preprocessors):
        if (step.func if isinstance(step, functools.partial) else step) in tokenizers:
            return list(task.preprocessors[:number])
    raise UserError(
        f"{task.name} has no step seqio.preprocessors.tokenize, before which its text could be "
        "read: give a task or a mixture that has"
    )


def _lines_of(text: object) -> list[str]:
    if not isinstance(text, bytes):
        return []
    return [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]


def train(text: Sequence[str], size: int, byte_fallback: bool = False) -> bytes:
    """A SentencePiece unigram model of the text; the same text gives the same model.

    Args:
      text: lines.
      size: number of pieces, with padding 0, EOS 1 and unknown 2; there is no beginning of
        sequence. T5's 100 sentinels are no part of it: VOCABULARY adds them.
      byte_fallback: rare characters are written as bytes, of which each is a piece, and not as
        unknown; rare are those that make up the last 0.001 % of the text, as for mT5, instead of
        0.05 %.

    Returns:
      The model, as its file holds it.

    Raises:
      UserError: no text, or a size that it cannot give.
    """
    if not text:
        raise UserError("there is no text to train a vocabulary on: the split is empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            byte_fallback=byte_fallback,
            character_coverage=0.99999 if byte_fallback else 0.9995,
            pad_id=seqio.PAD_ID,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            max_sentence_length=_LONGEST_LINE,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_explanation(str(error), size)) from error
    return model.getvalue()


def _explanation(reason: str, size: int) -> str:
    most = re.search(r"value <= (\d+)", reason)
    least = re.search(r"required_chars\. \d+ vs (\d+)", reason)
    if most:
        return f"{size} pieces are more than this text gives: write --size {most[1]} or less"
    if least:
        return f"{size} pieces are fewer than the text's characters take, {least[1]}: write more"
    return f"SentencePiece cannot train {size} pieces: {reason.strip().splitlines()[-1]}"


def check_size(size: int) -> None:
    """Raises UserError where a vocabulary cannot have so many pieces, whatever the text."""
    if not 3 < size <= MOST_PIECES:  # padding, EOS, unknown
        raise UserError(
            f"a vocabulary of {size} pieces: write --size 4 to {MOST_PIECES}, for example 8000"
        )


def check_new(path: str) -> None:
    """Raises UserError where the file is there: a run may use it, and its ids would change."""
    if tf.io.gfile.exists(path):
        raise UserError(f"{path} is there already, and runs may use it: choose another name")


def write(model: bytes, path: str) -> None:
    """Writes a model to a folder or bucket.

    Raises:
      UserError: it cannot be written there.
    """
    unfinished = f"{path}.unfinished"
    try:
        tf.io.gfile.makedirs(path.rpartition("/")[0] or ".")
        with tf.io.gfile.GFile(unfinished, "wb") as file:
            file.write(model)
        tf.io.gfile.rename(unfinished, path)
    except tf.errors.OpError as error:
        raise storage_error(f"cannot write {path}: {error.message}", error) from error
