"""From the files of a task to its examples, in the order in which a run reads them.

`position`, `epoch_order`, `file_chunks`, `read_ahead` and `prefetch` load no TensorFlow.
"""
