"""The picture of the page on meshes: which part of what lies on which device."""

import runpy

import numpy as np

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from tests.docs.pages import ROOT


def test_parts_are_those_that_the_rules_give():
    parts_on = runpy.run_path(str(ROOT / "tools/mesh_picture.py"))["parts_on"]
    parts = parts_on(make_mesh(MeshConfig(data=2, expert=2, model=2)))
    # Devices in the order of the mesh: model runs fastest, then expert, then data.
    expected = {
        "tokens": [0, 0, 1, 1, 2, 2, 3, 3],
        "dense FFN": [0, 1, 0, 1, 0, 1, 0, 1],
        "experts": [0, 1, 2, 3, 0, 1, 2, 3],
    }
    assert list(parts) == list(expected)
    for name, numbers in expected.items():
        np.testing.assert_array_equal(parts[name], numbers)
