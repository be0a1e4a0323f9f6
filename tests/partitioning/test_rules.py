import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh

from switch_jax.model import abstract_parameters, logical_axes
from switch_jax.partitioning.rules import parameter_specs
from switch_jax.utils.errors import UserError
from tests.partitioning.test_mesh import Chip
from tests.trainer.helpers import tiny_model

INTO, OUT = ("layers", "embed", "mlp"), ("layers", "mlp", "embed")
EXPERTS_OUT = ("layers", "expert", "mlp", "embed")
ALL = ("data", "expert")


def _mesh(data: int, expert: int, model: int) -> AbstractMesh:
    return AbstractMesh((data, expert, model), ("data", "expert", "model"))


def _spec(names, shape, mesh, fully_sharded=True):
    array = jax.ShapeDtypeStruct(shape, np.float32)
    return parameter_specs({"p": names}, {"p": array}, _mesh(*mesh), fully_sharded)["p"]


@pytest.mark.parametrize(
    ("names", "shape", "mesh", "expected"),
    [
        (INTO, (6, 768, 3072), (16, 8, 1), (None, ALL, "model")),
        (OUT, (6, 3072, 768), (16, 8, 2), (None, ("model", *ALL), None)),
        # 768 does not divide by 512; 3072 does, and leaves 6 columns.
        (INTO, (6, 768, 3072), (16, 32, 1), (None, ("expert",), "model")),
        (INTO, (6, 768, 65536), (16, 32, 1), (None, None, ("model", *ALL))),  # 128 columns
        # There is no other way.
        (INTO, (6, 75, 512), (16, 32, 1), (None, None, ("model", *ALL))),
        # The vocabulary divides by 128 and not by 256.
        (("vocab", "embed"), (32128, 768), (2, 128, 1), (("model", "expert"), None)),
        # Neither divides by 512: the larger of the two axes that does alone.
        (("embed", "heads"), (768, 768), (16, 32, 1), (("expert",), "model")),
        (("embed", "heads"), (768, 768), (32, 16, 1), (("data",), "model")),
        # Nothing divides.
        (("embed", "heads"), (15, 15), (2, 2, 1), (None, "model")),
        # The experts' own are split over expert already.
        (EXPERTS_OUT, (6, 128, 3072, 768), (4, 64, 2), (None, "expert", ("model", "data"), None)),
        # Fewer experts than devices on the expert axis: each device computes with all of them.
        (EXPERTS_OUT, (6, 2, 64, 32), (2, 4, 1), (None, None, ("model", *ALL), None)),
        (("layers", "embed"), (8, 64), (2, 2, 1), (None, None)),
        (("relpos_buckets", "heads"), (32, 64), (2, 2, 2), (None, "model")),
    ],
)
def test_where_fully_sharded_arrays_lie(names, shape, mesh, expected):
    spec = _spec(names, shape, mesh)
    assert tuple(p if p is None or type(p) is str else tuple(p) for p in spec) == expected


def test_between_slices_no_weights_are_gathered():
    """Two slices of two chips along expert: data is between slices, and splits no matrix."""
    chips = [Chip(i, (i % 2, 0, 0), slice_index=i // 2) for i in range(4)]
    mesh = Mesh(np.reshape(np.array(chips, object), (2, 2, 1)), ("data", "expert", "model"))
    shapes = {
        "dense": jax.ShapeDtypeStruct((6, 32, 16), np.float32),
        "experts": jax.ShapeDtypeStruct((6, 8, 32, 16), np.float32),
    }
    axes = {"dense": OUT, "experts": EXPERTS_OUT}
    assert parameter_specs(axes, shapes, mesh, fully_sharded=True) == {
        "dense": (None, ("model", "expert"), None),
        "experts": (None, "expert", "model", None),
    }
    along_data = Mesh(mesh.devices.reshape(4, 1, 1), mesh.axis_names)
    dense = {"dense": axes["dense"]}, {"dense": shapes["dense"]}
    assert parameter_specs(*dense, along_data, fully_sharded=True) == {
        "dense": (None, "model", None)
    }


def test_without_it_only_experts_and_model_split_weights():
    assert _spec(EXPERTS_OUT, (6, 8, 32, 16), (2, 2, 2), False) == (None, "expert", "model", None)
    assert _spec(EXPERTS_OUT, (6, 2, 32, 16), (2, 4, 2), False) == (None, None, "model", None)
    assert _spec(INTO, (6, 32, 16), (2, 2, 2), False) == (None, None, "model")


def test_an_axis_that_does_not_divide_is_refused_with_the_numbers():
    numbers = r"'mlp' of size 30 .*'model' of 4 devices \(30 % 4 = 2\).* a divisor of 30"
    with pytest.raises(UserError, match=numbers):
        _spec(INTO, (6, 16, 30), (2, 1, 4))


def test_the_width_of_activations_must_divide_too():
    numbers = r"'embed' of size 18 .*'model' of 4 devices \(18 % 4 = 2\).* a divisor of 18"
    with pytest.raises(UserError, match=numbers):
        _spec(INTO, (6, 18, 32), (2, 1, 4))


def test_every_matrix_of_a_model_is_split_over_the_whole_mesh():
    model = tiny_model(num_experts=4)
    specs = parameter_specs(
        logical_axes(model), abstract_parameters(model), _mesh(2, 2, 2), fully_sharded=True
    )
    for path, spec in jax.tree_util.tree_leaves_with_path(
        specs, is_leaf=lambda x: type(x) is tuple
    ):
        name = jax.tree_util.keystr(path)
        split = [a for p in spec if p for a in ([p] if isinstance(p, str) else p)]
        if "norm" in name or "position" in name:
            assert not {*ALL} & {*split}, name
        else:
            wanted = ALL if "router" in name else (*ALL, "model")
            assert sorted(split) == sorted(wanted), name
