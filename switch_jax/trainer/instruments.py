"""What watches a run: metrics, progress, goodput, profiler and watchdog."""

import contextlib
from collections.abc import Callable
from typing import Any

from switch_jax.config import Config
from switch_jax.monitoring import Goodput, MetricWriter, Profiler, Progress, Watchdog
from switch_jax.run_folder import RecordKind, RunFolder, training_seconds
from switch_jax.runtime.multihost import is_first, run_on_all
from switch_jax.trainer.records import Records
from switch_jax.utils.errors import UserError
from switch_jax.utils.terminal import say


class Instruments(contextlib.ExitStack):
    """What reports on a run, opened together and closed together; only the first process writes."""

    def __init__(self, config: Config, folder: RunFolder, step: int, config_text: str) -> None:
        """Opens them at the start after `step` steps; UserError: the metrics cannot be written."""
        super().__init__()
        self.folder = folder
        with contextlib.ExitStack() as opened:  # closes what is open where the rest fails
            run = config.run
            self.writer = run_on_all(
                lambda: MetricWriter(folder, run.wandb_project, config_text, active=is_first())
            )
            opened.push(closed_by(self.writer.close))
            self.progress = Progress(run.train_steps, step, active=is_first())
            opened.callback(self.progress.close)
            last = self.writer.last_record(RecordKind.TRAIN, step)
            self.goodput = Goodput(last and last.get("spent"))
            self.records = Records(config, self.writer, self.progress, self.goodput)
            self.profiler = Profiler(folder.tensorboard, run.profile_steps)
            opened.callback(self.profiler.close)
            self.watchdog = Watchdog(run.watchdog_seconds)
            opened.callback(self.watchdog.close)
            self.push(opened.pop_all())

    def write(self, kind: RecordKind, step: int, values: dict[str, Any]) -> None:
        """Writes a record; see `MetricWriter`."""
        self.writer.write(kind, step, training_seconds(self.goodput.seconds()), values)


def closed_by(close: Callable[[], None]) -> Callable[..., None]:
    """For `ExitStack.push`: an error in closing does not hide the error that came before it.

    It is printed, but once the storage has failed, further failures of it are not.
    """

    def exit(kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            close()
        except UserError as second:
            if error is None:
                raise
            if not (second.of_storage and getattr(error, "of_storage", False)):
                say(f"switch_jax train: and as the run was closed: {second}")

    return exit
