"""A small run, and a mesh with the attributes that `planning` reads, for tests without libtpu."""

import dataclasses

import numpy as np

from switch_jax.config import Config, DataConfig, MeshConfig, ModelConfig, RunConfig

CONFIG = Config(
    RunConfig("none", train_steps=1, batch_size=16),
    ModelConfig(
        num_embeddings=64,
        embed_dim=8,
        mlp_dim=16,
        head_dim=4,
        num_heads=2,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_experts=4,
        expert_mlp_dim=16,
        sparse_step=2,
        group_size=32,
    ),
    DataConfig("none", {"inputs": 32, "targets": 16}),
    MeshConfig(2, 4, 1),
)


@dataclasses.dataclass
class Device:
    """A chip of the torus."""

    coords: tuple[int, int, int]
    slice_index: int = 0


@dataclasses.dataclass
class FakeMesh:
    """Devices by (data, expert, model)."""

    devices: np.ndarray
    axis_names: tuple[str, ...] = ("data", "expert", "model")

    @property
    def shape(self):
        return dict(zip(self.axis_names, self.devices.shape, strict=True))
