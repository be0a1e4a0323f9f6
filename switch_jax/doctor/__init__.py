"""Checks of a machine: what is here, whether it computes the right thing, and how fast.

`all_checks` lists them; `checks` runs them one after the other, and goes on when one fails.
`installed` says what is here. `kernels`, `layers` and `steps` compare each part with a plain way of
doing the same, by `compare`. `speed` measures products, memory and exchanges, `step_time` the step
of a config, `storage` a checkpoint, `input_pipeline` the data. `results` and `page` write what was
found. `attention_choice` is what GPU_ATTENTION = 'auto' does.
"""
