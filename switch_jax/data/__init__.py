"""Data: from registered seqio tasks to packed NumPy batches, as `config.DataConfig` says.

Batches: `train_batches`, `eval_batches`; `packing`, their arrays, and which examples share a row;
`task_examples`, the training examples of a task in streams; `preprocessing`, their graphs.

Below it: `catalogue`, tasks and vocabularies by name; `span_corruption`, T5's pretraining task;
`reading`, from files to examples.
"""
