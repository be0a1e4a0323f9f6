"""Runs that differ in nothing but their seed are one configuration, with a name and a colour."""

import dataclasses
import json
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from switch_jax.config import Config
from switch_jax.reports.drawing import COLOURS
from switch_jax.reports.runs import Run
from switch_jax.run_folder import config_values, value_of

# Bindings of config.gin and facts of run.json in which two seeds of a configuration differ.
_OF_A_SEED = ("random_seed", "model_dir")
_FACTS_OF_A_SEED = ("name", "seed")
_DENSE_COLOURS = ("#D55E00", "#E69F00", "#222222")
_MAP = "viridis"
_LIGHTEST, _DARKEST = 0.72, 0.0  # of the map, for the fewest experts and for the most
_PARTS: list[Any] = [
    part.type for part in dataclasses.fields(Config) if dataclasses.is_dataclass(part.type)
]
_DEFAULTS = {
    f"{part.__name__}.{field.name}": repr(field.default)
    for part in _PARTS
    for field in dataclasses.fields(part)
    if field.default is not dataclasses.MISSING
}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One or more runs that differ in nothing but their seed, or that of the run they came from."""

    runs: tuple[Run, ...]  # ascending by seed
    label: str = ""  # beside its curves
    colour: str = ""  # of its curves

    @property
    def dense(self) -> bool:
        return self.runs[0].dense

    @property
    def sparse(self) -> bool:
        return self.runs[0].sparse

    @property
    def num_experts(self) -> int | None:
        """Experts of each Switch layer; 0 in a dense model; None where run.json lacks it."""
        return self.runs[0].facts.get("num_experts")

    @property
    def parameters(self) -> int | None:
        """Parameters of the model; None where run.json lacks them."""
        return self.runs[0].facts.get("parameters")

    @property
    def title(self) -> str:
        """The label, with the number of seeds where there are several."""
        return f"{self.label} ({len(self.runs)} seeds)" if len(self.runs) > 1 else self.label


def group_runs(runs: Iterable[Run]) -> list[Configuration]:
    """The configurations of some runs, in the order of their first runs.

    Where they differ in the number of experts (`is_study`), they are in the order of that number,
    called by it, and coloured by it.
    """
    found = _groups(runs)
    if is_study(found):
        found.sort(key=lambda c: (c.num_experts, c.parameters or 0))
        num_dense = sum(c.dense for c in found)
        labels = [_experts_label(c, num_dense) for c in found]
        tints = np.linspace(_LIGHTEST, _DARKEST, len(found) - num_dense)
        colours = [_DENSE_COLOURS[i % len(_DENSE_COLOURS)] for i in range(num_dense)]
        colours += [to_hex(matplotlib.colormaps[_MAP](tint)) for tint in tints]
    else:
        names = [_common_name(c.runs) for c in found]
        labels = [
            name if names.count(name) == 1 else c.runs[0].name
            for name, c in zip(names, found, strict=True)
        ]
        colours = _colours_of_names(labels)
    return [Configuration(c.runs, *look) for c, *look in zip(found, labels, colours, strict=True)]


def is_study(found: Sequence[Configuration]) -> bool:
    """Whether the configurations are a study of the number of experts.

    They are if there are three or more that began from scratch, with a dense one among them, and
    each sparse one has its own number of experts.
    """
    experts = [c.num_experts for c in found]
    sparse = [n for n in experts if n]
    return (
        len(found) >= 3
        and 0 in experts
        and None not in experts
        and len(set(sparse)) == len(sparse) >= 2
        and all(run.from_scratch for run in runs_of(found))
    )


def runs_of(found: Iterable[Configuration]) -> list[Run]:
    """The runs, in the order of the configurations."""
    return [run for configuration in found for run in configuration.runs]


def _colours_of_names(names: Sequence[str]) -> list[str]:
    """A colour for each name, most often the same whatever other names there are.

    The name chooses it. Where two names choose the same one, the first in the alphabet gets it, and
    the other one takes the next that is free.
    """
    taken: list[int] = []
    colour_of = {}
    for i in sorted(range(len(names)), key=lambda i: names[i]):
        first = zlib.crc32(names[i].encode())
        if len(taken) == len(COLOURS):  # more names than colours: each may come again
            taken.clear()
        free = (n % len(COLOURS) for n in range(first, first + len(COLOURS)))
        taken.append(next(n for n in free if n not in taken))
        colour_of[i] = COLOURS[taken[-1]]
    return [colour_of[i] for i in range(len(names))]


def _experts_label(configuration: Configuration, num_dense: int) -> str:
    if configuration.sparse:
        return f"{configuration.num_experts} experts"
    if num_dense == 1:
        return "dense"
    runs, name = configuration.runs, _common_name(configuration.runs)
    return name if len(runs) > 1 else re.sub(rf"(?<=.)[\W_]+(seed)?{runs[0].seed}$", "", name)


def _common_name(runs: Sequence[Run]) -> str:
    """What the runs' names begin and end with, without the seed and what separates it from them."""
    if len(runs) == 1:
        return runs[0].name
    common = os.path.commonprefix([run.name for run in runs])
    backwards = os.path.commonprefix([run.name[len(common) :][::-1] for run in runs])
    end = re.search(r"[\W_].*", backwards[::-1])
    begin = re.sub(r"(?<=.)[\W_]+(seed)?[\W_]*\d*$", "", common)
    return (begin + (end[0] if end else "")).lstrip("_-.") or runs[0].name


def _groups(runs: Iterable[Run]) -> list[Configuration]:
    by_identity: dict[str, list[Run]] = {}
    for run in runs:
        by_identity.setdefault(_identity(run), []).append(run)
    found = []
    for group in by_identity.values():
        # Two runs of one seed are not two seeds.
        if len({_seeds(run) for run in group}) == len(group):
            found.append(Configuration(tuple(sorted(group, key=_seeds))))
        else:
            found += [Configuration((run,)) for run in group]
    return found


def _seeds(run: Run) -> tuple[int, ...]:
    """The seed of the run, that of the run it came from, and so on."""
    earlier = run.origin.run if run.origin else None
    return (run.seed or 0, *(_seeds(earlier) if earlier else ()))


def _identity(run: Run) -> str:
    """The same text for runs that differ in nothing but their seeds.

    They may be of several versions: a fact that one lacks is as one that is null. Where a run came
    from a checkpoint of another run, that one's identity and the step stand for the checkpoint;
    where the other run cannot be read, the path does.
    """
    if not run.config or run.seed is None:
        return run.folder
    facts = {
        key: x for key, x in run.facts.items() if key not in _FACTS_OF_A_SEED and x is not None
    }
    left_out: tuple[str, ...] = _OF_A_SEED
    if run.origin is not None and run.origin.run is not None:
        facts["initial_checkpoint"] = [_identity(run.origin.run), run.origin.step]
        left_out += ("initial_checkpoint_path",)
    fields = config_fields(run.config, left_out)
    imports = re.findall(r"^import .*", run.config, re.M)
    return json.dumps([facts, fields, imports], sort_keys=True)


def config_fields(text: str, left_out: Sequence[str] = ()) -> dict[str, str]:
    """The value of each field in a config.gin, as "ModelConfig.num_experts", by its name.

    A field that the text lacks has its default. Values of macros stand in place of the macros, and
    1 in place of 1.0. Empty where the text sets nothing. Names in `left_out` are without what the
    fields are of; their macros are left out, too.
    """
    values = {
        name: value
        for name, value in config_values(text).items()
        if re.split("[./]", name)[-1].lower() not in left_out
    }
    if not values:
        return {}
    fields = {name: value_of(name, values) for name in values if "." in name}
    return {name: value.removesuffix(".0") for name, value in (_DEFAULTS | fields).items()}
