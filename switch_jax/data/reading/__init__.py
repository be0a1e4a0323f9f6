"""From the files of a task to its examples, in the order in which a run reads them.

`sources`, the files of a task; `file_chunks` and `parquet`, chunks of them; `epoch_order` and
`shuffle_blocks`, which of them a stream reads when; `position`, where a run is in them;
`read_ahead` and `prefetch`; `examples`, with errors that name the file; `seqio_internals`.

`position`, `epoch_order`, `file_chunks`, `read_ahead` and `prefetch` load no TensorFlow.
"""
