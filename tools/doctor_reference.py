"""Prints REFERENCE of `switch_jax.doctor.steps`: what a step gives on one CPU device in float32.

python -m tools.doctor_reference
"""

import jax

from switch_jax.config import MeshConfig
from switch_jax.doctor.steps import REFERENCE, Step, batch_of, config_of
from switch_jax.partitioning.mesh import make_mesh


def main() -> None:
    """Prints a line of Python."""
    jax.config.update("jax_platforms", "cpu")
    mesh = make_mesh(MeshConfig(1, 1, 1))
    config = config_of(mesh, "float32")
    with jax.set_mesh(mesh):
        _, metrics = Step.of(config, mesh, batch_of(config)).run()
    print("REFERENCE =", {name: float(getattr(metrics, name)) for name in REFERENCE})


if __name__ == "__main__":
    main()
