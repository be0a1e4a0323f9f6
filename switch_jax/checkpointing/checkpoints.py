"""Checkpoints of one run: asynchronous, the newest few kept, restored onto any mesh."""

from pathlib import Path
from typing import Any, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from switch_jax.errors import UserError

State = TypeVar("State")


class Checkpoints:
    """The folder `checkpoints` of a run, with one folder a step in it."""

    def __init__(self, model_dir: str | Path, keep: int) -> None:
        """Opens the folder, and makes it where it is not.

        Args:
          model_dir: the run's folder.
          keep: how many of the newest checkpoints stay.
        """
        self.directory = Path(model_dir).absolute() / "checkpoints"
        self._checkpointer = ocp.training.Checkpointer(
            str(self.directory),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def restore(self, step: int, abstract_state: State) -> State:
        """Reads a checkpoint into the shapes, dtypes and shardings of `abstract_state`.

        Raises:
          UserError: the checkpoint is of another model; names the first arrays that differ.
        """
        saved = _shapes(self._checkpointer.metadata(step).metadata)
        wanted = _shapes(abstract_state)
        differing = sorted(k for k in saved.keys() | wanted.keys() if saved.get(k) != wanted.get(k))
        if differing:
            examples = "; ".join(
                f"{name}: {saved.get(name, 'absent')} in the checkpoint, "
                f"{wanted.get(name, 'absent')} in the config"
                for name in differing[:3]
            )
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} is of another model: "
                f"{len(differing)} of {len(wanted)} arrays differ ({examples}); use that model's "
                "config, the switch_jax that wrote it, or another MODEL_DIR"
            )
        return self._checkpointer.load(step, abstract_state)

    def save(self, step: int, state: Any) -> None:
        """Copies the state off the devices and writes it in the background."""
        self._checkpointer.save_async(step, state)

    def close(self) -> None:
        """Waits until everything is written."""
        self._checkpointer.close()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by slash-separated path, of arrays or of what Orbax says of them."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }
