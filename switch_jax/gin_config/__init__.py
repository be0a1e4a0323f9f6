"""A run's `Config` from gin files and bindings, below the commands and the functions of Python.

- `run_config`: `read`, which all others call, and what it returns.
- `reader`: gin files one by one, with one-line messages for mistakes in them.
- `checks`: whether the model's file is the first, and every macro has a value and a use.
- `packaged`: the gin files that come with switch_jax.
- `user_files`: the gin files and modules of a config that the user has written.
- `parent`: the model of the run that a run starts from, where it is given no model's file.
- `teacher`: the config of the run that a model is distilled from.
- `gin_internals`: the parts of gin without a public name.
"""

from switch_jax.gin_config.run_config import GinConfig, read
