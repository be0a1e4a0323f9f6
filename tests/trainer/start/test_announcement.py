import pytest

from switch_jax.config import MeshConfig, OptimizerConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.trainer.start.announcement import announcement, reading
from tests.trainer.helpers import tiny_config, tiny_model


@pytest.mark.parametrize(
    ("schedule", "warmup", "warned"),
    [
        ("constant", 11, True),
        ("constant", 10, False),
        ("warmup_rsqrt", 11, True),
        ("rsqrt", 1000, False),
    ],
)
def test_a_warm_up_longer_than_the_run_is_told(schedule, warmup, warned):
    """The run has 10 steps; under 'rsqrt' the rate is constant in the warm-up."""
    lines = _told(learning_rate=0.1, lr_schedule=schedule, warmup_steps=warmup)
    expected = [
        "warning: the learning rate rises over WARMUP_STEPS = 11 steps, and the run has 10: it "
        "ends at 0.91 of its peak; set WARMUP_STEPS lower"
    ]
    assert [line for line in lines if "WARMUP_STEPS" in line] == expected * warned
    assert lines[1] == "10 steps of 192 tokens: 8 rows of 16 + 8, padding included"


def test_what_each_host_reads_is_told():
    """A batch has 8 rows of 24 tokens; with 4 streams, each of 4 hosts reads 2 rows."""
    config = tiny_config(tiny_model()).replace("data", data_streams=4)
    assert reading(config, 1) == reading(config, 8) == []
    assert reading(config, 4) == ["each host reads 48 tokens a step, of 4 streams in all"]
    # Streams that do not divide over the hosts are read as a whole.
    config = config.replace("data", data_streams=8).replace("run", batch_size=24)
    # Rows 8 to 15 are of the streams 2 to 5, of 3 rows each.
    assert (config.tokens_read(3), config.tokens_read(4)) == (4 * 3 * 24, 2 * 3 * 24)
    # Fewer rows than streams.
    assert config.replace("run", batch_size=4).tokens_read(2) == 2 * 24


def _told(**settings):
    """What a run with these settings of the optimiser says first."""
    config = tiny_config(tiny_model(), optimizer=OptimizerConfig(**settings))
    return announcement(config, make_mesh(MeshConfig(1, 1, 1)))


@pytest.mark.parametrize(
    ("pattern", "trained", "frozen"),
    [
        ("(?!.*/router).*", 47, "encoder/router 64, decoder/router 64"),
        ("(?!.*/rooter).*", 49, "none"),
    ],
)
def test_what_is_frozen_is_told(pattern, trained, frozen):
    lines = _told(trained_parameters=pattern)
    told = next(line for line in lines if line.startswith("TRAINED_PARAMETERS"))
    assert f"{trained} arrays of 49 are trained: " in told
    assert set(told.rpartition("; frozen: ")[2].split(", ")) == set(frozen.split(", "))


def test_other_learning_rates_are_told():
    lines = _told(learning_rate_factors=[(".*/router", 0.1), ("(en|de)coder/blocks/.*", 0.5)])
    told = next(line for line in lines if line.startswith("LEARNING_RATE_FACTORS"))
    routers, blocks, others = told.split("; ")
    assert (
        routers
        == "LEARNING_RATE_FACTORS: 0.1 for 2 arrays of 49: decoder/router 64, encoder/router 64"
    )
    assert blocks.startswith("0.5 for 42 arrays of 49: decoder/")
    assert others.startswith("1 for 5 arrays of 49: decoder/") and "embedding 1,024" in others
