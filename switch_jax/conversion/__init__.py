"""Checkpoints of other formats: into ours, out of ours, and what they hold.

`formats` opens one as a `source`, `tensor_layout` says how our parameters lie in it, and
`source_to_gin` describes its model in gin. `to_run` writes a run's folder, and `inspect` tells what
a checkpoint is. The packages are `hugging_face`, and `t5x`, which is read only.
"""
