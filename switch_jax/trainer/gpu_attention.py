"""What GPU_ATTENTION = 'auto' is in a run: chosen once, and kept in the run's folder."""

import dataclasses

from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.run_folder import RunFolder, config_values, read_config, value_of, with_value
from switch_jax.runtime.processes import from_first, is_first
from switch_jax.trainer.prepare import Prepared

_FIELD = "ModelConfig.gpu_attention"


def with_kept_attention(config: Config, config_text: str) -> tuple[Config, str]:
    """The config and its text with the attention that the run in MODEL_DIR has, where it is 'auto'.

    They stay as they are where there is no run yet.
    """
    if config.model.gpu_attention != "auto":
        return config, config_text
    folder = RunFolder.at(config.run.model_dir)
    values = config_values(from_first(lambda: read_config(folder).value))
    kept = value_of(_FIELD, values).strip("'\"") if _FIELD in values else ""
    if kept in ("xla", "cudnn"):
        return _with_attention(config, config_text, kept)
    return config, config_text


def with_chosen_attention(prepared: Prepared, config_text: str) -> tuple[Prepared, str]:
    """The run and its text with 'xla' or 'cudnn' for 'auto', the same on all processes.

    It is what the run in MODEL_DIR has. For a new one it is measured on NVIDIA GPUs, which prints a
    line, and 'xla' elsewhere.
    """
    config, text = with_kept_attention(prepared.config, config_text)
    if config.model.gpu_attention == "auto":
        attention = "xla"
        if is_on_nvidia(prepared.mesh):
            from switch_jax.doctor.attention_choice import choose_attention

            attention, reason = choose_attention(config, prepared.mesh.shape)
            if is_first():
                print(reason, flush=True)
        config, text = _with_attention(config, text, attention)
    return dataclasses.replace(prepared, config=config), text


def is_on_nvidia(mesh: Mesh) -> bool:
    """Whether the devices may have cuDNN."""
    return "NVIDIA" in mesh.devices.flat[0].device_kind


def _with_attention(config: Config, text: str, attention: str) -> tuple[Config, str]:
    """Also of the teacher, which runs in the same step."""
    config = config.replace("model", gpu_attention=attention)
    if config.teacher is not None:
        teacher = config.teacher.replace("model", gpu_attention=attention)
        config = dataclasses.replace(config, teacher=teacher)
    return config, with_value(_FIELD, repr(attention), text)
