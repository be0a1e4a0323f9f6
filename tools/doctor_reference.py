"""Prints REFERENCE of `switch_jax.doctor.step_checks`: a step on one CPU device in float32.

python -m tools.doctor_reference
"""

import jax

from switch_jax.config import MeshConfig
from switch_jax.doctor.step_checks import first_steps
from switch_jax.partitioning.mesh import make_mesh


def main() -> None:
    """Prints a line of Python."""
    jax.config.update("jax_platforms", "cpu")
    (found, _), _ = first_steps(make_mesh(MeshConfig(1, 1, 1)))
    print("REFERENCE =", found)


if __name__ == "__main__":
    main()
