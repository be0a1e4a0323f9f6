"""Converts checkpoints of other formats into runs and back, and describes what they hold.

`formats` opens one as a `source`, `tensor_layout` says how our parameters lie in it, and
`source_to_gin` describes its model in gin. `to_run` writes a run's folder, and `inspect` describes
a checkpoint. The packages are `hugging_face`, and `t5x`, which is read only.
"""
