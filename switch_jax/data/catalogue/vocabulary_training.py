"""Trains SentencePiece vocabularies on the text of a task or mixture."""

import io
from collections.abc import Iterator, Sequence

import sentencepiece

from switch_jax.data.catalogue.configured_tasks import with_folder
from switch_jax.data.catalogue.registry import mixing_rates, tasks_with_split
from switch_jax.data.reading import seqio_internals
from switch_jax.data.reading.examples import read_examples
from switch_jax.data.reading.sources import files_digest, open_source
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio

# In bytes; SentencePiece skips longer lines. Its default is 4192.
_MAX_LINE_LENGTH = 65536


def lines(name: str, split: str, examples: int, c4_json_dir: str | None = None) -> Iterator[str]:
    """The lines of text of a task or mixture before tokenisation; the same in every call.

    `examples` is the most source examples, which a mixture's tasks share by their rates. Raises
    UserError: unknown name or split, missing or damaged data, or a task that tokenises no text.
    """
    tasks = [with_folder(task, c4_json_dir) for task in tasks_with_split(name, split)]
    before = [_before_tokens(task) for task in tasks]
    for task in tasks:
        files_digest(task, split, use_cached=False)  # raises UserError for a file that is missing
    rates = mixing_rates(name, tasks)
    for task, steps, rate in zip(tasks, before, rates, strict=True):
        dataset = steps.preprocess_postcache(open_source(task.source, split), None, seed=0)
        dataset = dataset.take(round(examples * rate / sum(rates)))
        for example in read_examples(dataset, task, split, use_cached=False):
            for text in map(example.get, task.output_features):
                if isinstance(text, bytes):
                    yield from filter(str.strip, text.decode("utf-8", "replace").splitlines())


def _before_tokens(task: seqio.Task) -> seqio.Task:
    """The task without the step that tokenises, and those after it."""
    tokenizers = (seqio.preprocessors.tokenize, seqio.preprocessors.tokenize_and_append_eos)
    for index, step in enumerate(task.preprocessors):
        if seqio_internals.without_partial(step) in tokenizers:
            return task.replace(preprocessors=task.preprocessors[:index])
    raise UserError(
        f"{task.name} has no step seqio.preprocessors.tokenize, before which its text could be "
        "read: give a task or a mixture that has one"
    )


def train(text: Sequence[str], size: int, byte_fallback: bool) -> bytes:
    """Trains a SentencePiece unigram model, the same for the same text, and returns its file.

    `size` is the number of pieces, including padding (0), EOS (1) and unknown (2), without T5's 100
    sentinels, which VOCABULARY adds. With `byte_fallback` rare characters (the last 0.001 % of the
    text, as for mT5) are bytes, each of which is a piece, and not unknown. Raises UserError: there
    is no text, or it cannot give this number of pieces.
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
            character_coverage=0.99999,
            pad_id=seqio.PAD_ID,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            max_sentence_length=_MAX_LINE_LENGTH,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2]  # after the place in its source
        raise UserError(f"SentencePiece cannot train {size} pieces: {reason}") from error
    return model.getvalue()
