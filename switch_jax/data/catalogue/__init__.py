"""Tasks and vocabularies by their names.

`registry`, tasks; `vocabularies`; `configured_tasks` and `checks`, those that a config names; and
what `switch_jax tasks` does: `task_list`, `task_preview`, `vocabulary_training`, `caching`.
"""
