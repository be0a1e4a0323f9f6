"""The picture of a Switch layer: which token is in which slot, and which are left out."""

import re
import runpy
import xml.etree.ElementTree as ET

import numpy as np

from tests.docs.pages import ROOT

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


def test_the_picture_of_the_docs_is_of_a_text_with_a_slot_or_none_for_each_token():
    text = (ROOT / "docs/switch_layer.svg").read_text()
    assert text.count("<path") == len(re.findall(r">0\.\d\d</text>", text)) > 10
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
