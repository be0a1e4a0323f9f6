"""A run's folder, MODEL_DIR: the names in it, reading and writing its files.

layout    where everything in the folder is     readers  reads the files, also damaged ones
records   kinds of records, and states          writers  makes the folder, writes its files
validation   whether what was read has the types that readers rely on

No other module spells the name of a file in the folder or of a kind of records. docs/run_folder.md
has both for users; a test compares it with the code.
"""

from switch_jax.run_folder.layout import EvalFolder, MetricsFolder, RunFolder, checkpoint_steps
from switch_jax.run_folder.readers import (
    FileContent,
    nothing_read,
    parse_records,
    read_commit_time,
    read_object,
    read_records,
    read_run_config,
    read_run_facts,
    stale_lock_holder,
)
from switch_jax.run_folder.records import (
    MAX_WAITING,
    TIME_CATEGORIES,
    Record,
    RecordKind,
    RunPhase,
    TimeCategory,
    training_seconds,
)
from switch_jax.run_folder.validation import DESCRIPTION, NUMBERS, STARTS, STATUS
from switch_jax.run_folder.writers import (
    check_run_folder,
    create_run_folder,
    write_bad_batch,
    write_description,
)
