"""Warm start: a new run begins with weights of a checkpoint of any format."""

import dataclasses
from typing import Any

import jax
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from switch_jax.checkpointing import find_checkpoint
from switch_jax.checkpointing.integrity import check_model, shapes_of
from switch_jax.checkpointing.read_only import check_part, load_parts, part_shapes
from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.formats import open_source
from switch_jax.conversion.source import Source
from switch_jax.data.catalogue.checks import check_vocabularies_of_run
from switch_jax.model import init_parameters
from switch_jax.model.parameter_names import parameter_axes
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.compiler_options import options_for_little_memory
from switch_jax.run_folder import RunFolder, read_run_config
from switch_jax.runtime.multihost import from_first, run_on_all
from switch_jax.storage import resolved, storage_path
from switch_jax.train_step.state import TrainState, abstract_model, abstract_state, fresh_state
from switch_jax.trainer.start.origins import (
    Origins,
    all_drawn,
    assemble,
    from_teacher,
    in_words,
    matched_names,
    other_meanings,
    same_names,
)
from switch_jax.trainer.start.teacher import Teacher
from switch_jax.trainer.start.upcycling import dense_twin, upcycled, upcycled_moments
from switch_jax.utils.errors import UserError

_REMEDY = (
    "take that model's config, or another checkpoint; or of this one what RESTORED_PARAMETERS "
    "says; with UPCYCLE the checkpoint has to be of the dense model"
)


@dataclasses.dataclass(frozen=True)
class Start:
    """The weights that a new run starts from.

    Attributes:
      checkpoint: the folder of one of ours, or an opened one of another format.
      parameters: those that are read, by their names there: `ShapeDtypeStruct`s on the run's mesh.
      kept: other parts of the state that are read, of the optimiser and the guard, nested.
    """

    checkpoint: epath.Path | Source
    origins: Origins
    parameters: dict[str, jax.ShapeDtypeStruct]
    kept: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def path(self) -> epath.Path:
        """Where the checkpoint lies."""
        return self.checkpoint.path if isinstance(self.checkpoint, Source) else self.checkpoint

    def load(self) -> dict[str, Any]:
        """The parameters by name, and the other parts; raises UserError if they cannot be read."""
        if not self.parameters:  # Orbax reads no empty tree
            return {"parameters": {}}
        parameters = unflatten_dict(self.parameters, sep="/")
        if isinstance(self.checkpoint, Source):
            parts = {"parameters": self.checkpoint.load(parameters)}
        else:
            parts = load_parts(self.checkpoint, {"parameters": parameters, **self.kept})
        return {**parts, "parameters": flatten_dict(parts["parameters"], sep="/")}


def find_start(config: Config, mesh: Mesh, teacher: Teacher | None) -> Start | None:
    """What a new run starts from, checked before anything is written; call it once a start.

    None where all is drawn, or the run goes on from a checkpoint of its own. Raises UserError: no
    checkpoint is there, it is damaged or of another model, or the run's own.
    """
    run = config.run
    own = run_on_all(lambda: resolved(storage_path(run.model_dir, "MODEL_DIR")))
    given = _given_path(config, own)
    if from_first(RunFolder(own).checkpoint_steps):
        return None
    if given is not None:
        return _checked_start(config, mesh, given)
    if teacher is None or not config.distillation.initialize_from_teacher:
        return None
    origins = from_teacher(config.model, teacher.model)
    return Start(teacher.checkpoint, origins, _to_read(origins, teacher.parameters))


def describe_start(config: Config, start: Start) -> list[str]:
    """What the log says of the weights that a run starts from."""
    kept = " and the optimiser's state" if start.kept else ""
    copied = "" if config.run.upcycle is None else "; the experts are copies of its layers"
    first = f"starting from the parameters{kept} of {start.checkpoint}{copied}"
    return [first, *in_words(config.model, start.origins)]


def initial_state(config: Config, abstract: TrainState, start: Start | None) -> TrainState:
    """The state before the first step, laid out as `abstract`; without `start` all is drawn."""
    optimizer, upcycle = make_optimizer(config), config.run.upcycle is not None
    origins = all_drawn(config.model) if start is None else start.origins

    def begin(loaded: dict[str, Any], key: jax.Array) -> TrainState:
        key, noise_key = jax.random.split(key) if upcycle else (key, key)
        drawn = {}
        if any(None in origin.pieces for origin in origins.values()):
            drawn = flatten_dict(init_parameters(config.model, key), sep="/")
        arrays = assemble(origins, drawn, loaded["parameters"], noise_key)
        state = fresh_state(config, optimizer, unflatten_dict(arrays, sep="/"))
        if "optimizer" not in loaded:
            return state
        theirs = loaded["optimizer"]
        if upcycle:
            theirs = upcycled_moments(origins, state.optimizer, theirs)
        # The guard counts the updates that metrics.jsonl tells the learning rate of.
        guard = state.guard._replace(good=loaded["guard"]["good"])
        return state._replace(optimizer=theirs, guard=guard)

    compiled = jax.jit(
        begin,
        # Layers and experts have another shape than what they are made of: nothing can be reused.
        donate_argnames="loaded" if all(o.is_whole for o in origins.values()) else None,
        out_shardings=jax.tree.map(lambda s: s.sharding, abstract),
        compiler_options=options_for_little_memory(),
    )
    # Steps fold their number into the same key: this is one that no run reaches.
    key = jax.random.fold_in(jax.random.key(config.run.random_seed), 2**32 - 1)
    return compiled({"parameters": {}} if start is None else start.load(), key)


def _given_path(config: Config, own: epath.Path) -> epath.Path | None:
    """INITIAL_CHECKPOINT_PATH on this machine; raises UserError where it is the run's `own`."""
    start = config.run.initial_checkpoint_path
    if start is None:
        return None
    given = run_on_all(lambda: resolved(storage_path(start, "INITIAL_CHECKPOINT_PATH")))
    if own == given or RunFolder(own).checkpoints == given.parent:
        raise UserError(
            f"INITIAL_CHECKPOINT_PATH {start!r} is of MODEL_DIR itself: write "
            "another MODEL_DIR to start a new run from it, or None to go on with that run"
        )
    return given


def _checked_start(config: Config, mesh: Mesh, given: epath.Path) -> Start:
    """What the run takes of the checkpoint at a path; raises as `find_start`."""
    run, source = config.run, run_on_all(lambda: open_source(given))
    found = source or find_checkpoint(str(run.initial_checkpoint_path))
    origins, theirs = _rule(config)
    parameters = _to_read(origins, abstract_model(theirs, config.mesh, mesh))
    settings: list[str] = []
    if isinstance(found, Source):
        name, saved = str(found.path), shapes_of(found.parameters)
        if run.restored_parameters is None:
            run_on_all(lambda: found.check_model(theirs, _REMEDY))
        else:
            run_on_all(found.check_copies)
    else:
        name, saved = f"the checkpoint {found}", part_shapes(found, "parameters")
        if run.restored_parameters is None:
            trained = run_on_all(lambda: read_run_config(RunFolder(found.parent.parent)))
            settings = [] if trained is None else other_meanings(trained.model, theirs)
    if run.restored_parameters is not None:
        saved = {name: shape for name, shape in saved.items() if name in parameters}
    check_model(saved, shapes_of(parameters), name, _REMEDY, settings)
    axes = parameter_axes(config.model)
    taken = (axes[name] for name, origin in origins.items() if any(origin.pieces))
    if not isinstance(found, Source) and any("vocab" in names for names in taken):
        of_run = found.parent.parent
        run_on_all(lambda: check_vocabularies_of_run(of_run, config.data))
    kept = _kept(config, theirs, mesh, found) if run.keep_optimizer_state else {}
    return Start(found, origins, parameters, kept)


def _rule(config: Config) -> tuple[Origins, ModelConfig]:
    """Where each parameter comes from, with INITIAL_CHECKPOINT_PATH; and the model there.

    With RESTORED_PARAMETERS that model is not known; what is taken of it is as in ours.
    """
    run, model = config.run, config.model
    if run.upcycle is not None:
        dense = dense_twin(model, run.upcycle)
        return upcycled(model, dense, run.upcycle, run.upcycle_noise), dense
    if run.restored_parameters is not None:
        return matched_names(model, run.restored_parameters), model
    return same_names(model), model


def _to_read(origins: Origins, theirs: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """What is read of a checkpoint, by the names there; `theirs` are nested shapes, see `_rule`."""
    shapes = flatten_dict(theirs, sep="/")
    return {
        piece.name: shapes[name if origin.is_whole else piece.name]
        for name, origin in origins.items()
        for piece in origin.pieces
        if piece is not None
    }


def _kept(
    config: Config, theirs: ModelConfig, mesh: Mesh, checkpoint: epath.Path | Source
) -> dict[str, Any]:
    """What KEEP_OPTIMIZER_STATE reads beside the parameters; UserError where it cannot go on."""
    if isinstance(checkpoint, Source):
        raise UserError(
            f"KEEP_OPTIMIZER_STATE = True, but {checkpoint.path} is a {checkpoint.format}, of "
            "which the parameters alone are read"
        )
    if config.lr_decay_steps:
        raise UserError(
            f"KEEP_OPTIMIZER_STATE = True goes on with the count of updates, and LR_SCHEDULE = "
            f"{config.optimizer.lr_schedule!r} ends with TRAIN_STEPS"
        )
    optimizer, trained = config.optimizer.optimizer, config.optimizer.trained_parameters
    if config.run.upcycle is not None and (optimizer, trained) != ("adafactor", "all"):
        # The others correct their moments by the count of updates, which new routers have not had.
        raise UserError(
            f"with UPCYCLE, KEEP_OPTIMIZER_STATE = True takes OPTIMIZER = 'adafactor' and "
            f"TRAINED_PARAMETERS = 'all', not {optimizer!r} and {trained!r}"
        )
    # Patterns of names that a dense model has not do not change what the state is.
    same_state = dataclasses.replace(config.optimizer, learning_rate_factors=None)
    state = abstract_state(dataclasses.replace(config, model=theirs, optimizer=same_state), mesh)
    check_part(checkpoint, "optimizer", state.optimizer)
    return {"optimizer": state.optimizer, "guard": {"good": state.guard.good}}
