"""Data: from registered seqio tasks to packed NumPy batches, as `config.DataConfig` says.

`reading` goes from files to examples; `task_examples` puts those of a task into streams;
`train_batches` and `eval_batches` pack them.
"""
