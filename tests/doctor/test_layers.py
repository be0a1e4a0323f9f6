"""A Switch layer on eight devices, as it is and with a wrong exchange."""

import jax
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor import layers
from switch_jax.doctor.checks import Verdict
from switch_jax.partitioning.mesh import make_mesh


@pytest.fixture
def mesh():
    """Along all axes."""
    mesh = make_mesh(MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        yield mesh


def test_it_gives_what_one_device_gives(mesh):
    found = layers.switch_layer(mesh)
    assert found.verdict == Verdict.OK, found


def test_a_wrong_exchange_is_reported_in_words(mesh, monkeypatch):
    exchange = jax.lax.all_to_all  # which a single device does not need
    monkeypatch.setattr(jax.lax, "all_to_all", lambda *a, **k: exchange(*a, **k)[..., ::-1])
    found = layers.switch_layer(mesh)
    assert found.verdict == Verdict.FAILED
    assert found.numbers["difference"] > 0.1
    assert "from one device, 1e-05 is allowed; the exchange between devices, or" in str(found)
