"""The registry of targets, and what `switch_jax launch` needs of each."""

import argparse
import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import pytest

from switch_jax.cli import launch
from switch_jax.launch import targets
from switch_jax.launch.target import Flag, Target
from switch_jax.launch.targets import TARGETS
from switch_jax.utils.errors import UserError


def test_every_module_of_the_folder_is_a_target():
    modules = {file.stem for file in Path(targets.__file__).parent.glob("[!_]*.py")}
    assert modules == {name.replace("-", "_") for name in TARGETS}
    assert modules == {target.__module__.rpartition(".")[2] for target in TARGETS.values()}


def test_the_flags_of_a_target_are_its_fields(monkeypatch):
    """Each kind of flag, of a target that there is not."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Printed(Target):
        on = "printed"

        queue: Annotated[str, Flag("where it waits", "NAME")]
        size: Annotated[int | None, Flag("how many", "N")] = None
        quiet: Annotated[bool, Flag("says nothing")] = False
        note: Annotated[tuple[str, ...], Flag("repeat it", "TEXT")] = ()
        paper: Annotated[Literal["a3", "a4"], Flag("how large")] = "a4"
        no_flag: str = ""

        check = describe = run = None

    monkeypatch.setitem(TARGETS, "printed", Printed)
    parser = argparse.ArgumentParser()
    launch.add_arguments(parser)

    def fields(*flags):
        return launch._target_fields(parser.parse_args(["--on=printed", *flags]))

    given = ["--queue=a", "--size=0", "--quiet", "--note=x", "--note=y", "--max_restarts=2"]
    expected = {"queue": "a", "size": 0, "quiet": True, "note": ("x", "y"), "max_restarts": 2}
    assert fields(*given) == expected
    assert fields("--queue=a", "--paper=a3") == {"queue": "a", "paper": "a3"}
    with pytest.raises(SystemExit):
        fields("--queue=a", "--paper=a5")
    assert fields("--queue=a") == {"queue": "a"}
    for mistake in ("--size=1", "--queue="):  # as with a variable of the shell that is not set
        with pytest.raises(UserError, match="--on=printed needs --queue; see"):
            fields(mistake)
    with pytest.raises(UserError, match="--on=printed has no use for --topology --spot: leave"):
        fields("--queue=a", "--topology=v5e-16", "--spot")
