"""The pictures of the docs: what tools draw, and whether the pages say what is in them."""

import re
import runpy
import xml.etree.ElementTree as ET

import numpy as np
from PIL import Image

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from tests.docs.pages import DOCS, ROOT

SVG = "{http://www.w3.org/2000/svg}"


def test_tokens_are_in_the_slots_of_their_experts_in_their_order():
    picture = runpy.run_path(str(ROOT / "tools/layer_picture.py"))["picture"]
    tokens, experts = ["a", "b", "<c>", "d", "e", "f"], np.array([1, 0, 1, 1, 0, 1])
    root = ET.fromstring(picture(tokens, experts, np.full(6, 0.75), num_experts=3, capacity=2))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert texts == [
        *("token", "gate", "experts, 2 slots each"),
        *(word for token in tokens for word in (token, "0.75")),
        *("0", "b", "e"),
        *("1", "a", "<c>"),
        "2",
        *("no slot left: passed on unchanged", "d", "f"),
    ]
    dashed = [path.get("stroke-dasharray") is not None for path in root.iter(f"{SVG}path")]
    assert dashed == [False, False, False, True, False, True]


def test_parts_of_a_mesh_are_those_that_the_rules_give():
    parts_on = runpy.run_path(str(ROOT / "tools/mesh_picture.py"))["parts_on"]
    parts = parts_on(make_mesh(MeshConfig(data=2, expert=2, model=2)))
    # Devices in the order of the mesh: model runs fastest, then expert, then data.
    assert {name: list(numbers) for name, numbers in parts.items()} == {
        "tokens": [0, 0, 1, 1, 2, 2, 3, 3],
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
    time, memory = re.search(r"takes (\S+ \+ \S+) ms .* and (\S+ of \S+) GiB", page).groups()
    assert f"| {memory} | {time} |" in performance
