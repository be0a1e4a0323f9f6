"""Data: from registered seqio tasks to packed NumPy batches, as `config.DataConfig` says.

Without TensorFlow, and quick to import:

- `batch`: the arrays of a batch.
- `packing`: which examples share a row.
- `position`: the position of a run in its data, as a checkpoint stores it.
- `epoch_order`: which files each stream reads in each epoch.
- `file_chunks`: chunks of files, of whole lines or records.
- `read_ahead`: reading chunks many at once, before they are needed.
- `prefetch`: reading ahead in a thread.
- `stateless_random`: TensorFlow's random numbers, for many seeds at a time.

With TensorFlow and seqio, from `switch_jax.tensorflow_setup`:

- `train_batches`, `eval_batches`: the batches of training and of evaluation.
- `mixed_stream`: one stream of the training data, tasks mixed and packed into rows.
- `task_examples`: the training examples of one task, in streams.
- `blocks`: the source examples that are preprocessed and shuffled together.
- `preprocessing`: graphs that apply the preprocessing steps of tasks.
- `span_masking`: T5's span corruption, many rows at a time. The noise density and the mean length
  of spans are the task's: `SPAN_CORRUPTION` in `tasks/building_blocks.py`.
- `sources`: the files of a task, a digest of them, and how they are read.
- `parquet`: Parquet files as a source, and chunks of their rows.
- `reading`: reading with errors that name the damaged file.
- `registry`: registered tasks and mixtures, their splits and rates.
- `configured_tasks`: the tasks that a config names, with its vocabulary.
- `checks`: whether a config fits its tasks, and whether their data can be read.
- `span_lengths`: which lengths T5's span corruption can fill.
- `vocabularies`: vocabularies by name or file.
- `vocabulary_training`: training a SentencePiece vocabulary.
- `caching`: writing the caches of tasks.
- `task_list`: the registered tasks, as text.
- `task_preview`: examples of a task, as text.
- `seqio_internals`: the parts of seqio without a public name.
"""
