"""Data: from registered seqio tasks to packed NumPy batches, as `config.DataConfig` says.

Batches: `train_batches`, `eval_batches`; `batch`, their arrays, and which examples share a row;
`task_examples`, the training examples of a task in streams.

Reading: `sources`, the files of a task; `file_chunks` and `parquet`, chunks of them; `epoch_order`
and `blocks`, which of them a stream reads when; `position`, where a run is in them; `read_ahead`
and `prefetch`; `reading`, with errors that name the file; `seqio_internals`.

Preprocessing: `preprocessing`, the steps of a task as graphs; `span_masking`, T5's span corruption
of many rows at a time, with TensorFlow's random numbers (`stateless_random`).

Tasks: `registry`, by name; `vocabularies`; `configured_tasks` and `checks`, those that a config
names; and what `switch_jax tasks` does: `task_list`, `task_preview`, `vocabulary_training`,
`caching`.

`batch`, `position`, `epoch_order`, `file_chunks`, `read_ahead`, `prefetch` and
`stateless_random` load no TensorFlow.
"""
