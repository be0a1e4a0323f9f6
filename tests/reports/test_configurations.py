import dataclasses
from collections import Counter

import pytest

from switch_jax.reports.configurations import group_runs, is_study
from tests.reports.by_hand import run, seed, tuned

POINTS = [(100, -4.0)]
PRETRAINED = [seed(i, "pretrained", 8, POINTS) for i in range(3)]


def grouped(runs):
    return [(c.label, [run.name for run in c.runs]) for c in group_runs(runs)]


def test_runs_that_differ_in_seed_and_folder_are_one_configuration():
    runs = [seed(1, "switch", 8, POINTS), seed(0, "dense", 0, POINTS), seed(0, "switch", 8, POINTS)]
    assert grouped(runs) == [("switch", ["switch_0", "switch_1"]), ("dense_0", ["dense_0"])]
    assert [c.title for c in group_runs(runs)] == ["switch (2 seeds)", "dense_0"]


@pytest.mark.parametrize(
    "change",
    [
        {"config": "NUM_EXPERTS = 8\nOptimizerConfig.learning_rate = 0.1\n"},
        {"config": "NUM_EXPERTS = 8\nmy_tasks.blanks.share = 0.1\n"},
        {"config": "import my_tasks\nNUM_EXPERTS = 8\n"},
        {"facts": {"num_experts": 8, "seed": 1, "device": "TPU v5e x 8"}},
        {"config": ""},
    ],
)
def test_runs_that_differ_in_more_are_not(change):
    first = seed(0, "switch", 8, POINTS)
    other = dataclasses.replace(seed(1, "switch", 8, POINTS), **change)
    assert [len(c.runs) for c in group_runs([first, other])] == [1, 1]


def of_configs(*configs):
    """How many seeds each configuration has, of runs of these configs with seeds 0, 1, ..."""
    runs = [seed(i, "switch", 8, POINTS) for i in range(len(configs))]
    pairs = zip(runs, configs, strict=True)
    found = group_runs([dataclasses.replace(r, config=config) for r, config in pairs])
    return [len(c.runs) for c in found]


def test_seeds_whose_configs_say_the_same_in_other_words_are_one_configuration():
    assert of_configs(
        "WIDTH = 64\nSEED = 0\nModelConfig.embed_dim = %WIDTH\nRunConfig.random_seed = %SEED\n"
        "RunConfig.watchdog_seconds = 1800.0\nLossConfig.z_loss = 0.1\n",
        "EMBED_DIM = 64\nEXPERT_SUBLAYERS = 'feed_forward'\nRANDOM_SEED = 1\nZ = 0.1\n"
        "LossConfig.z_loss = %Z\nModelConfig.embed_dim = %EMBED_DIM\n"
        "ModelConfig.expert_sublayers = %EXPERT_SUBLAYERS\nRunConfig.random_seed = %RANDOM_SEED\n"
        "RunConfig.watchdog_seconds = 1800\n",
        "ModelConfig.embed_dim = 64\nLossConfig.z_loss = 0.1\nRunConfig.random_seed = 2\n",
    ) == [3]


@pytest.mark.parametrize(
    "other",
    [
        "A = 1\nModelConfig.embed_dim = 64\nModelConfig.expert_sublayers = 'both'\n",
        "A = 1\nModelConfig.embed_dim = 65\n",
        "A = 1\n",
        "ModelConfig.embed_dim = 64\nModelConfig.jitter_noise = %A\nA = 1\n",
    ],
)
def test_a_field_of_another_value_makes_another_configuration(other):
    assert of_configs("A = 1\nModelConfig.embed_dim = 64\n", other) == [1, 1]


def test_a_fact_that_a_version_did_not_state_is_as_none():
    runs = [seed(0, "switch", 8, POINTS), seed(1, "switch", 8, POINTS, teacher_checkpoint=None)]
    assert [len(c.runs) for c in group_runs(runs)] == [2]


def test_two_runs_of_one_seed_are_not_two_seeds():
    runs = [seed(0, "a", 8, POINTS), seed(0, "b", 8, POINTS)]
    assert grouped(runs) == [("a_0", ["a_0"]), ("b_0", ["b_0"])]


def test_fine_tunings_from_the_seeds_of_a_pretraining_are_one_configuration():
    runs = [tuned(i, "qa", PRETRAINED[i]) for i in (2, 0, 1)]
    assert grouped(runs) == [("qa", ["qa_0", "qa_1", "qa_2"])]
    again = [tuned(i, "again", run, step=200) for i, run in enumerate(runs)]
    assert grouped(again) == [("again", ["again_0", "again_1", "again_2"])]


@pytest.mark.parametrize(
    "before",
    [
        "INITIAL_CHECKPOINT_PATH =",
        "RunConfig.initial_checkpoint_path =",
    ],
)
@pytest.mark.parametrize(
    "value", [" '/x/{}'\n", " \\\n    '/x/{}'\n", " \\\n    ('/x {} '\n     'y {}')\n"]
)
def test_the_path_of_the_checkpoint_may_be_bound_in_any_way(before, value):
    runs = [
        dataclasses.replace(
            tuned(i, "qa", PRETRAINED[i]),
            config=f"my.a = 1\n{before}{value.format(i, i)}RANDOM_SEED = {i}\nmy.b = 2\n",
        )
        for i in range(2)
    ]
    assert grouped(runs) == [("qa", ["qa_0", "qa_1"])]
    other = dataclasses.replace(runs[1], config=runs[1].config.replace("b = 2", "b = 3"))
    assert [len(c.runs) for c in group_runs([runs[0], other])] == [1, 1]


@pytest.mark.parametrize(
    "other",
    [
        tuned(1, "qa", PRETRAINED[1], step=1500),
        tuned(1, "qa", seed(1, "pretrained", 4, POINTS)),
        tuned(1, "qa", seed(1, "pretrained", 8, POINTS, parameters=7)),
        tuned(1, "qa", tuned(1, "pretrained", PRETRAINED[1])),
        tuned(1, "qa", run("pretrained", 8, POINTS)),
        tuned(1, "qa", None, path="/gone/checkpoints/3000"),
    ],
)
def test_fine_tunings_from_checkpoints_that_differ_in_more_are_not(other):
    runs = [tuned(0, "qa", PRETRAINED[0]), other]
    assert [len(c.runs) for c in group_runs(runs)] == [1, 1]


def test_where_the_run_before_cannot_be_read_the_path_counts():
    paths = ["/gone/checkpoints/3000", "/lost/checkpoints/3000"]
    runs = [tuned(i, "qa", None, path=paths[0]) for i in range(2)]
    assert [len(c.runs) for c in group_runs(runs)] == [2]
    runs = [tuned(i, "qa", None, path=path) for i, path in enumerate(paths)]
    assert [len(c.runs) for c in group_runs(runs)] == [1, 1]


@pytest.mark.parametrize(
    ("seeds", "sizes"),
    [
        ([(0, 0), (1, 0)], [2]),  # of fine-tuning, of pretraining
        ([(0, 0), (0, 1)], [2]),
        ([(0, 0), (0, 1), (1, 0)], [3]),
        ([(0, 1), (0, 1)], [1, 1]),
    ],
)
def test_a_seed_is_that_of_fine_tuning_and_that_of_pretraining(seeds, sizes):
    runs = [
        dataclasses.replace(tuned(own, "qa", PRETRAINED[before]), folder=str(i))
        for i, (own, before) in enumerate(seeds)
    ]
    found = group_runs(runs[::-1])
    assert [len(c.runs) for c in found] == sizes
    if len(sizes) == 1:
        assert list(found[0].runs) == runs


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (("dense_0", "dense_1"), "dense"),
        (("dense.seed10", "dense.seed12"), "dense"),
        (("t5-base-1", "t5-base-2"), "t5-base"),
        (("0", "1"), "0"),
        (("experts_8_0", "experts_8_1"), "experts_8"),
        (("dense_0", "dense_10"), "dense"),
        (("switch_0_qa_750", "switch_1_qa_750"), "switch_qa_750"),
        (("t5.seed10.qa", "t5.seed20.qa"), "t5.qa"),
        (("0_qa", "1_qa"), "qa"),
    ],
)
def test_the_label_is_what_the_names_begin_with(names, label):
    runs = [
        dataclasses.replace(seed(i, "run", 8, POINTS), name=name) for i, name in enumerate(names)
    ]
    assert grouped(runs) == [(label, list(names))]


def colours_of(names):
    found = group_runs([run(name, 8, POINTS) for name in names])
    return {c.label: c.colour for c in found}


def test_a_run_keeps_its_colour_whatever_the_order_of_the_command_line():
    colours = colours_of(["c", "a", "b"])
    assert colours == colours_of(["b", "a", "c"]) and len(set(colours.values())) == 3


def test_a_run_keeps_its_colour_when_one_is_added_that_chooses_another():
    before, after = colours_of(["dense", "switch"]), colours_of(["base", "dense", "switch"])
    assert before.items() < after.items()


def test_seven_runs_have_seven_colours_and_more_have_them_again():
    assert len(set(colours_of("abcdefg").values())) == 7
    assert Counter(colours_of("abcdefghijklmn").values()) == dict.fromkeys(
        colours_of("abcdefg").values(), 2
    )


def test_a_study_is_in_the_order_of_experts_with_a_colour_for_each():
    runs = [seed(0, f"experts_{n}", n, POINTS) for n in (16, 2, 8, 4)]
    runs += [seed(i, "dense", 0, POINTS) for i in (0, 1)]
    found = group_runs(runs)
    assert is_study(found)
    labels = ["dense", "2 experts", "4 experts", "8 experts", "16 experts"]
    assert [c.label for c in found] == labels
    brightness = [sum(matplotlib_rgb(c.colour)) for c in found[1:]]
    assert brightness == sorted(brightness, reverse=True)
    assert found[0].colour not in [c.colour for c in found[1:]]


def matplotlib_rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_two_dense_models_of_a_study_keep_their_names():
    large = seed(0, "dense_large", 0, POINTS, parameters=10)
    runs = [large, seed(0, "dense", 0, POINTS, parameters=5)]
    runs += [seed(0, f"experts_{n}", n, POINTS) for n in (2, 4)]
    labels = ["dense", "dense_large", "2 experts", "4 experts"]
    assert [c.label for c in group_runs(runs)] == labels


@pytest.mark.parametrize(
    "experts", [[0, 8], [0, 8, 8], [2, 4, 8], [0, 0, 8], [0, None, 2, 4]], ids=str
)
def test_other_runs_are_no_study_and_keep_order_and_names(experts):
    found = group_runs([run(f"run{i}", n, POINTS) for i, n in enumerate(experts)])
    assert not is_study(found)
    assert [c.label for c in found] == [f"run{i}" for i in range(len(experts))]


def test_fine_tuned_runs_are_no_study():
    start = {"initial_checkpoint": "/run/checkpoints/4"}
    runs = [run(name, n, POINTS, **start) for name, n in (("a", 0), ("b", 2), ("c", 4))]
    assert not is_study(group_runs(runs))
