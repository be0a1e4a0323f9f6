"""Files for a code host and for those who change the project: what in them can become wrong."""

import re
from pathlib import Path

import yaml

from switch_jax.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")  # as the Makefile takes them


def loaded(path):
    return yaml.safe_load((ROOT / path).read_text())


def test_the_workflow_runs_the_commands_of_the_readme_on_the_first_and_last_python():
    jobs = loaded(".github/workflows/test.yml")["jobs"]
    commands = [step["run"] for step in jobs["commands"]["steps"] if "run" in step]
    section = (ROOT / "README.md").read_text().partition("## Two commands")[2]
    assert commands == re.findall(r"^    (make \w+)", section, re.M)
    assert jobs["commands"]["strategy"]["matrix"]["python"] == [PYTHONS[0], PYTHONS[-1]]
    accepted = re.search(r'"\$\(VERSION\)" in (\S+)\)', (ROOT / "Makefile").read_text())[1]
    assert accepted == "|".join(f"{python}.*" for python in PYTHONS)
    assert {"run": "make docs"} in jobs["docs"]["steps"]


def test_the_workflow_needs_no_secret_and_may_only_read():
    text = (ROOT / ".github/workflows/test.yml").read_text()
    assert "secrets." not in text
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_the_hooks_before_a_commit_are_the_tools_of_make_test():
    (local,) = loaded(".pre-commit-config.yaml")["repos"]
    commands = {hook["entry"].replace(".venv/bin", "@$(BIN)") for hook in local["hooks"]}
    recipe = re.search(r"(?m)^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text())[1]
    assert "@$(BIN)/mypy switch_jax tasks launch tools" in commands
    assert "@$(BIN)/mypy switch_jax tasks launch tools" in recipe
    assert {command.split()[0] for command in commands} == {"@$(BIN)/ruff", "@$(BIN)/mypy"}


def test_issue_forms_have_what_a_code_host_asks_for():
    for file in (ROOT / ".github/ISSUE_TEMPLATE").iterdir():
        form = yaml.safe_load(file.read_text())
        assert form["name"] and form["description"]
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids))
        assert all(part["attributes"]["label"] for part in form["body"])


def test_the_citation_has_the_version():
    assert loaded("CITATION.cff")["version"] == __version__
