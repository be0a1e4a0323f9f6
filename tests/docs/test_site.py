"""The site as it is built; only where requirements-docs.txt is installed."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT, navigation

pytest.importorskip("zensical")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Builds the site from a copy, with warnings as errors; returns its folder."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "switch_jax", "tools", "gin", "tasks", "launch"):
        ignore = shutil.ignore_patterns("__pycache__", "results", "data")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("zensical.toml", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    printed = done.stdout + done.stderr
    assert done.returncode == 0 and "griffe:" not in printed, printed
    return folder / "build/site"


def test_every_page_is_built_and_loads_nothing_from_another_host(site):
    loaded = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=\"(https?:)?//")
    for page in navigation():
        text = (site / page).with_suffix(".html").read_text()
        assert not loaded.search(text), page
        assert "</article>" in text
        assert not re.search(r"<p>(switch_jax|python|make) [a-z]+ -", text), f"{page}: code as text"


def test_names_of_python_have_their_docstrings(site):
    text = (site / "reference/python.html").read_text()
    assert "switch_jax.load" in text and text.count("Loads a model onto this machine") == 1
    configs = (site / "reference/configs.html").read_text()
    assert 'id="switch_jax.config.RunConfig"' in configs and "watchdog_seconds" in configs


def test_the_search_has_the_words_of_tables_and_blocks_of_code(site):
    items = json.loads((site / "search.json").read_text())["items"]
    text = {item["location"].partition(".html")[0]: "" for item in items}
    for item in items:
        text[item["location"].partition(".html")[0]] += item["text"]
    assert "a run has failed or is stalled" in text["exit_codes"]
    assert "--partition=h100" in text["slurm"]
