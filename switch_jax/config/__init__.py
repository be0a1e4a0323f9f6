"""The configuration of a run: a frozen object of eight parts. Loads no JAX, TensorFlow or gin."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from switch_jax.config.attention import AttentionConfig
from switch_jax.config.data import DataConfig
from switch_jax.config.distillation import DistillationConfig
from switch_jax.config.execution import ExecutionConfig
from switch_jax.config.experts import ExpertsConfig
from switch_jax.config.guard import GuardConfig
from switch_jax.config.loss import LossConfig
from switch_jax.config.mesh import MeshConfig
from switch_jax.config.model import ModelConfig
from switch_jax.config.optimizer import OptimizerConfig
from switch_jax.config.routing import RoutingConfig
from switch_jax.config.run import RunConfig
from switch_jax.config.schedules import SCHEDULES
from switch_jax.config.transformer import TransformerConfig
from switch_jax.utils.differences import differences
from switch_jax.utils.errors import FieldError, UserError, check_choice, did_you_mean
from switch_jax.utils.fields import check_fields, check_used, short_repr

PARTS: dict[str, Any] = {
    "run": RunConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "mesh": MeshConfig,
    "optimizer": OptimizerConfig,
    "loss": LossConfig,
    "guard": GuardConfig,
    "distillation": DistillationConfig,
}

# The macros that are not called as the field that they set.
_MACROS = {
    "MeshConfig.data": "MESH_DATA",
    "MeshConfig.expert": "MESH_EXPERT",
    "MeshConfig.model": "MESH_MODEL",
    "DistillationConfig.fraction_soft": "DISTILLATION_FRACTION_SOFT",
    "DistillationConfig.temperature": "DISTILLATION_TEMPERATURE",
}


def by_macro(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`Config.settings` by the names of the macros that set them, as NUM_EXPERTS; but MODEL_DIR.

    Of the two fields that RANDOM_SEED sets the second has the name DataConfig.random_seed.
    """
    named: dict[str, Any] = {}
    for part, kind in PARTS.items():
        for field, value in settings[part].items():
            parameter = f"{kind.__name__}.{field}"
            macro = _MACROS.get(parameter, field.upper())
            named[parameter if macro in named else macro] = value
    return {name: value for name, value in named.items() if name != "MODEL_DIR"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run is configured by.

        config = switch_jax.Config(
            run=switch_jax.RunConfig("runs/small", train_steps=1000, batch_size=64),
            model=switch_jax.ModelConfig(
                num_embeddings=1152, embed_dim=64, mlp_dim=128, head_dim=16, num_heads=4,
                num_encoder_layers=2, num_decoder_layers=2, num_experts=4, group_size=64,
            ),
            data=switch_jax.DataConfig("english_span_corruption", {"inputs": 32, "targets": 8}),
        )
        config.model.num_experts  # 4
        config = config.replace("run", train_steps=2000)  # the same, but for this field

    Attributes:
      run: how long it is, what it is called, how often it evaluates and saves.
      model: sizes of the Transformer and its experts.
      data: what is read, and how it is laid out.
      mesh: how many ways each kind of parallelism splits the work.
      optimizer: how the parameters are updated.
      loss: what is minimised.
      guard: when a step is bad, and what follows.
      distillation: the teacher that it learns from, if there is one.
      teacher: the config of the teacher's run, which is read from its folder: no part of this one's
        gin text. None: there is no teacher.
      imports: modules that register its tasks, as ("my_tasks",): the `import` lines of gin files.

    Raises:
      UserError: two parts contradict each other; `FieldError`, a kind of it: a part, or a field of
        one, has another type, or is out of range.
    """

    run: RunConfig
    model: ModelConfig
    data: DataConfig
    mesh: MeshConfig = MeshConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    guard: GuardConfig = GuardConfig()
    distillation: DistillationConfig = DistillationConfig()
    teacher: "Config | None" = None
    imports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for module in self.imports:
            if not all(map(str.isidentifier, module.split("."))):
                raise UserError(
                    f"imports = {short_repr(self.imports)}: {short_repr(module)} is no name of a "
                    "module"
                )
        for part in (self.loss, self.optimizer):
            check_used(part, self.model)
        self._check_lengths()
        self._check_schedule()
        self._check_start()
        self._check_teacher()

    def _check_lengths(self) -> None:
        lengths = self.data.task_feature_lengths
        for stack in self.model.stacks:
            if stack.features[-1] not in lengths:
                raise FieldError(
                    "task_feature_lengths",
                    f"= {dict(lengths)}: the {stack.name} reads {stack.features[-1]!r}: give them "
                    "a length, too, or take a model without it (NUM_ENCODER_LAYERS = 0)",
                )

    def _check_schedule(self) -> None:
        steps, warmup = self.lr_decay_steps, self.optimizer.warmup_steps
        if steps and warmup + steps > self.run.train_steps:
            raise UserError(
                f"LR_SCHEDULE = {self.optimizer.lr_schedule!r} has {warmup:,} steps of warm-up and "
                f"{steps:,} of decay, more than TRAIN_STEPS = {self.run.train_steps:,}"
            )

    def _check_start(self) -> None:
        distillation, start = self.distillation, self.run.initial_checkpoint_path
        is_taken = distillation.teacher_dir is not None and distillation.initialize_from_teacher
        if is_taken and start is not None:
            raise UserError(
                f"the run cannot start both from INITIAL_CHECKPOINT_PATH = {start!r} and from the "
                f"weights of TEACHER_DIR = {distillation.teacher_dir!r} (INITIALIZE_FROM_TEACHER)"
            )

    def _check_teacher(self) -> None:
        if self.teacher is None:
            return
        rows, own = self.teacher.model.num_embeddings, self.model.num_embeddings
        if rows != own:
            raise UserError(
                f"the teacher in {self.distillation.teacher_dir} has NUM_EMBEDDINGS = {rows}, and "
                f"the model {own}"
            )
        theirs, ours = (
            {stack.name: stack.features for stack in model.stacks}
            for model in (self.teacher.model, self.model)
        )
        if theirs != ours:
            raise UserError(
                f"the teacher in {self.distillation.teacher_dir} consists of "
                f"{' and '.join(theirs)}, and the model of {' and '.join(ours)}: "
                "NUM_ENCODER_LAYERS must be 0 in both or in none"
            )

    @property
    def teacher_model(self) -> ModelConfig | None:
        """The model of the teacher that each step runs; None where the loss has no part of it."""
        if self.teacher is None or not self.distillation.fraction_soft:
            return None
        return self.teacher.model

    @property
    def lr_decay_steps(self) -> int:
        """How many of the last steps have a learning rate that falls to its final value, or 0."""
        optimizer, falls = self.optimizer, SCHEDULES[self.optimizer.lr_schedule].falls
        if falls == "after_warmup":
            return max(1, self.run.train_steps - optimizer.warmup_steps)
        if falls == "at_the_end":
            return optimizer.decay_steps or max(1, self.run.train_steps // 10)
        return 0

    @property
    def tokens_per_step(self) -> int:
        """Input and target tokens of a batch, padding included."""
        return self.run.batch_size * sum(self.data.lengths)

    def tokens_read(self, readers: int) -> int:
        """Those of a step that a host reads: the streams of its rows, as a whole.

        `readers` is into how many parts hosts split the batch; of unequal ones the largest counts.
        """
        rows = self.run.batch_size // readers
        # A plan may have fewer rows than streams, which a run refuses.
        of_a_stream = max(1, self.run.batch_size // self.data.data_streams)
        streams = max(
            (first + rows - 1) // of_a_stream - first // of_a_stream + 1
            for first in range(0, readers * rows, rows)
        )
        return streams * of_a_stream * sum(self.data.lengths)

    def as_gin(self) -> str:
        """Gin text that describes this config: a macro for each field, and the field with it."""
        macros: dict[str, object] = {}
        settings = []
        for part, kind in PARTS.items():
            for field in dataclasses.fields(kind):
                value = getattr(getattr(self, part), field.name)
                name = f"{kind.__name__}.{field.name}"
                macro = _MACROS.get(name, field.name.upper())
                is_shared = macros.setdefault(macro, value) == value  # RANDOM_SEED has two fields
                settings.append(f"{name} = %{macro}" if is_shared else f"{name} = {value!r}")
        imports = [f"import {module}" for module in self.imports]
        values_of_macros = [f"{macro} = {value!r}" for macro, value in macros.items()]
        return "\n".join([*imports, *values_of_macros, *settings, ""])

    def settings(self) -> dict[str, Any]:
        """All fields by part, but the teacher's, as JSON gives them back: what config.json has."""
        values = {part: dataclasses.asdict(getattr(self, part)) for part in PARTS}
        return json.loads(json.dumps({**values, "imports": self.imports}))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Config":
        """The config that `settings` is of; a field that it lacks has its default."""
        parts = {part: kind(**settings[part]) for part, kind in PARTS.items()}
        return cls(**parts, imports=settings["imports"])

    def changes_since(self, before: "Config") -> list[str]:
        """The settings that differ, as "NUM_EXPERTS 4 -> 8"; but MODEL_DIR: a run may be moved."""
        return differences(by_macro(before.settings()), by_macro(self.settings()))

    def replace(self, part: str, /, **changes: object) -> "Config":
        """The same, with other fields of a part, as in `config.replace("run", random_seed=1)`.

        UserError where there is no such part or field, or the part itself refuses the value.
        """
        check_choice("part", part, tuple(PARTS))
        values = getattr(self, part)
        known = [field.name for field in dataclasses.fields(values)]
        for name in changes:
            if name not in known:
                raise UserError(
                    f"{type(values).__name__} has no field {name}{did_you_mean(name, known)}: its "
                    f"fields are {', '.join(known)}"
                )
        return dataclasses.replace(self, **{part: dataclasses.replace(values, **changes)})
