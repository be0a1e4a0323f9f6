"""How many tokens a second this host reads and prepares of the config's data."""

import time

from switch_jax.config import Config
from switch_jax.doctor.checks import Finding, Verdict
from switch_jax.doctor.speed import Machine
from switch_jax.errors import UserError
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.partitioning.placing import rows_on_this_host

_SECONDS = 3.0
_ADVICE = (
    "give data that each host can read: `switch_jax tasks NAME` with the name in "
    "MIXTURE_OR_TASK_NAME, and the same --tfds_data_dir, says more"
)
_TOO_SLOW = (
    "the step waits for data: cache the task (`switch_jax tasks cache NAME`), or give the "
    "hosts more cores"
)


def input_tokens_per_second(config: Config, seconds: float) -> float:
    """Tokens a second of the rows that this host needs, read as `train` reads them.

    Counted are the positions of the rows, padding included: a step needs BATCH_SIZE times those of
    a row, of all hosts together. The files are open and the first batch is read before the clock
    starts.

    Args:
      config: of the run; its data, batch and mesh are taken.
      seconds: how long to read, at least; a batch is read to its end.

    Raises:
      UserError: the data cannot be read, or do not fit the config.
    """
    from switch_jax.data.checks import open_tasks  # loads TensorFlow
    from switch_jax.data.train_batches import TrainBatches

    needed = rows_on_this_host(make_mesh(config.mesh), config.run.batch_size)
    batches = TrainBatches(open_tasks(config.data), config.run.batch_size, needed_rows=needed)
    next(batches)
    number, start = 0, time.monotonic()
    while (passed := time.monotonic() - start) < seconds or not number:
        next(batches)
        number += 1
    return number * len(needed) * sum(config.data.lengths) / passed


def input_check(config: Config, machine: Machine) -> Finding:
    """Reads MIXTURE_OR_TASK_NAME, each process on its own host; after the checks of the step.

    Has failed, too, where the step that was measured takes more than this host prepares.
    """
    task = config.data.mixture_or_task_name
    try:
        rate = input_tokens_per_second(config, _SECONDS)
    except UserError as error:
        return Finding(Verdict.FAILED, f"{task} cannot be read: {error}", {}, _ADVICE)
    text, numbers = f"{rate:,.0f} tokens/s of {task} on this host", {"tokens_per_second": rate}
    if machine.step_tokens_per_second is None:
        return Finding(Verdict.OK, text, numbers)
    rows = rows_on_this_host(machine.mesh, config.run.batch_size)
    needed = machine.step_tokens_per_second * len(rows) / config.run.batch_size
    verdict = Verdict.OK if rate >= needed else Verdict.FAILED
    text += f", of which the step takes {needed:,.0f}"
    return Finding(verdict, text, numbers | {"needed_per_second": needed}, _TOO_SLOW)
