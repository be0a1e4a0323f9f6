"""The pictures of the docs: they are what their scripts draw, and say what the code does."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from switch_jax.config import MeshConfig
from switch_jax.hardware.tpus import GENERATIONS
from switch_jax.partitioning.mesh import make_mesh
from tests.docs.pages import DOCS, ROOT, texts

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from tools.pictures import exchange, layer, meshes, step_time
    from tools.pictures.__main__ import NAMES, draw

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?\d+\.\d+")  # of a computed place
MADE_UP = re.compile(r"base64,[^\"]+|\w*[0-9a-f]{10}")  # by matplotlib: cells of a map, and names


def words(svg):
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_what_its_script_draws(name):
    drawn = draw(name)
    shown = (DOCS / f"{name}.svg").read_text()
    assert words(drawn) == words(shown)
    drawn, shown = MADE_UP.sub("", drawn), MADE_UP.sub("", shown)
    assert NUMBER.sub("", drawn) == NUMBER.sub("", shown)
    places = [list(map(float, NUMBER.findall(svg))) for svg in (drawn, shown)]
    np.testing.assert_allclose(*places, atol=0.11)


def test_every_picture_is_on_a_page_with_words_for_those_who_do_not_see_it():
    pages = "\n".join(texts().values())
    told = dict(re.findall(r"!\[([^\]]+)\]\((?:docs/)?([\w.]+)\)", pages))
    shown = {path: alt for alt, path in told.items()}
    linked = set(re.findall(r"\]\((?:docs/)?([\w.]+)\)", pages))
    for picture in [*DOCS.glob("*.svg"), *DOCS.glob("*.png")]:
        assert picture.name in linked
        assert len(shown.get(picture.name, "a picture that a page links to").split()) >= 5


def test_tokens_are_in_the_slots_of_their_experts_in_their_order():
    tokens, experts = ["a", "b", "<c>", "d", "e", "f"], np.array([1, 0, 1, 1, 0, 1])
    svg = layer.draw(tokens, experts, np.full(6, 0.75), num_experts=3, capacity=2)
    assert words(svg) == [
        *("token", "gate", "experts, 2 slots each"),
        *(word for token in tokens for word in (token, "0.75")),
        *("0", "b", "e"),
        *("1", "a", "<c>"),
        "2",
        *("no slot left: passed on unchanged", "d", "f"),
    ]
    paths = ET.fromstring(svg).iter(f"{SVG}path")
    assert [path.get("stroke-dasharray") is not None for path in paths] == [False] * 3 + [
        True,
        False,
        True,
    ]


def test_parts_of_a_mesh_are_those_that_the_rules_give():
    parts = meshes.parts_on(make_mesh(MeshConfig(data=2, expert=2, model=2)))
    # Devices in the order of the mesh: model runs fastest, then expert, then data.
    assert {name: list(numbers) for name, numbers in parts.items()} == {
        "activations": [0, 1, 2, 3, 4, 5, 6, 7],
        "dense FFN": [0, 1, 0, 1, 0, 1, 0, 1],
        "experts": [0, 1, 2, 3, 0, 1, 2, 3],
    }


def test_the_picture_of_the_demo_is_of_the_run_in_the_tables():
    sentence = Image.open(DOCS / "demo.png").text["Description"]
    page, reports = ((DOCS / name).read_text() for name in ("demo.md", "reports.md"))
    assert sentence in " ".join(reports.split())
    numbers = r"final (\S+) at .* ([\d.]+) times sooner in steps, ([\d.]+) in .* is ([\d.]+) nats"
    value, steps, time, nats = re.search(numbers, sentence).groups()
    for text in (f"| {value} |", f"{steps} times sooner in steps", f"{time} times sooner", nats):
        assert text in page


def test_the_picture_of_a_plan_is_as_new_as_the_table_of_performance():
    """The page says what is in the picture; who changes the table draws the picture again."""
    page, performance = ((DOCS / f"{name}.md").read_text() for name in ("planning", "performance"))
    numbers = r"takes (\S+ \+ \S+) ms .* and (\S+) of (\S+) GiB"
    time, memory, limit = re.search(numbers, page).groups()
    table = performance.partition(f"| GiB of {limit} | ms |")[2].partition("\n\n")[0]
    assert f"| {memory} | {time} |" in table
    computing = sum(step_time.CYCLES.values()) / GENERATIONS["v5p"].clock * 1e3
    waiting = sum(waited for _, waited in step_time.EXCHANGES.values())
    assert f"{step_time.COMPUTING} + {step_time.WAITING}" == time
    assert f"{computing:.1f}" == step_time.COMPUTING
    assert waiting == pytest.approx(float(step_time.WAITING), abs=0.06)


def test_the_slots_of_a_group_are_tokens_over_experts_times_the_factor():
    svg = (DOCS / "capacity.svg").read_text()
    heading = r"factor [\d.]+: (\d+) / (\d+) x ([\d.]+) = (\d+) slots"
    sums = [map(float, match) for match in re.findall(heading, svg)]
    assert len(sums) == 3
    for tokens, experts, factor, slots in sums:
        assert math.ceil(tokens / experts * factor) == slots
    # Each token is once in the group, and once for each factor, in a slot or dropped.
    numbers = [int(word) for word in words(svg) if word.isdigit()]
    assert sorted(numbers) == sorted([*range(1, 17)] * 4)
    dropped = [int(n) for n in re.findall(r"(\d+) tokens dropped", svg)]
    assert sum(dropped) == svg.count("stroke-dasharray") and dropped == sorted(dropped)[::-1]


def test_the_all_to_all_brings_each_token_to_the_device_of_its_expert():
    chips = [word for word in words(exchange.draw()) if re.fullmatch(r"[A-D]\d", word)]
    before, after = chips[: len(chips) // 2], chips[len(chips) // 2 :]
    assert sorted(before) == sorted(after) == sorted(f"{d}{i}" for d in "ABCD" for i in range(1, 9))
    assert [chip[0] for chip in before] == [d for d in "ABCD" for _ in range(8)]
    experts = [exchange.CHOICES["ABCD".index(chip[0]), int(chip[1]) - 1] for chip in after]
    assert experts == sorted(experts)
