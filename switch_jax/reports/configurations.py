"""Runs that differ in nothing but their seed are one configuration: one curve, with a band."""

import dataclasses
import json
import os
import re
import zlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from switch_jax.reports.config_fields import config_fields
from switch_jax.reports.figures import COLOURS
from switch_jax.reports.runs import Run, Series

# Bindings of config.gin and facts of run.json in which two seeds of a configuration differ.
_OF_A_SEED = ("random_seed", "model_dir")
_FACTS_OF_A_SEED = ("name", "seed")
_DENSE_COLOURS = ("#D55E00", "#E69F00", "#222222")
_MAP = "viridis"
_LIGHTEST, _DARKEST = 0.72, 0.0  # of the map, for the fewest experts and for the most


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One or more runs that differ in nothing but their seed, or that of the run they came from.

    Attributes:
      label: what it is called beside its curves.
      colour: of its curves.
      runs: ascending by seed.
    """

    label: str
    colour: str
    runs: tuple[Run, ...]

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


def group_runs(runs: Sequence[Run]) -> list[Configuration]:
    """The configurations of some runs, in the order of their first runs.

    Where they differ in the number of experts (`is_study`), they are in the order of that number,
    called by it, and coloured by it.
    """
    groups = _groups(runs)
    if not _differ_in_experts(groups):
        names = [_common_name(group) for group in groups]
        labels = [
            name if names.count(name) == 1 else group[0].name
            for name, group in zip(names, groups, strict=True)
        ]
        return [
            Configuration(label, colour, tuple(group))
            for label, colour, group in zip(labels, _colours_of_names(labels), groups, strict=True)
        ]
    groups.sort(key=lambda group: (_experts(group), group[0].facts.get("parameters", 0)))
    dense = [group for group in groups if not _experts(group)]
    tints = np.linspace(_LIGHTEST, _DARKEST, len(groups) - len(dense))
    palette = [_DENSE_COLOURS[i % len(_DENSE_COLOURS)] for i in range(len(dense))]
    palette += [to_hex(matplotlib.colormaps[_MAP](tint)) for tint in tints]
    return [
        Configuration(_experts_label(group, len(dense)), colour, tuple(group))
        for group, colour in zip(groups, palette, strict=True)
    ]


def is_study(found: Sequence[Configuration]) -> bool:
    """Whether the configurations are a study of the number of experts.

    They are if there are three or more that began from scratch, with a dense one among them, and
    each sparse one has its own number of experts.
    """
    return _differ_in_experts([c.runs for c in found])


def runs_of(found: Sequence[Configuration]) -> list[Run]:
    """The runs, in the order of the configurations."""
    return [run for configuration in found for run in configuration.runs]


def colours_of_runs(found: Sequence[Configuration]) -> list[str]:
    """The colour of each run, in the order of the configurations."""
    return [configuration.colour for configuration in found for _ in configuration.runs]


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


def _differ_in_experts(groups: Sequence[Sequence[Run]]) -> bool:
    experts = [_experts(group) for group in groups]
    sparse = [n for n in experts if n > 0]
    return (
        len(groups) >= 3
        and 0 in experts
        and -1 not in experts
        and len(set(sparse)) == len(sparse) >= 2
        and all(run.from_scratch for group in groups for run in group)
    )


def _experts(group: Sequence[Run]) -> int:
    return group[0].facts.get("num_experts", -1)


def _experts_label(group: Sequence[Run], num_dense: int) -> str:
    if _experts(group):
        return f"{_experts(group)} experts"
    if num_dense == 1:
        return "dense"
    name = _common_name(group)
    return name if len(group) > 1 else re.sub(rf"(?<=.)[\W_]+(seed)?{group[0].seed}$", "", name)


def _common_name(group: Sequence[Run]) -> str:
    """What the runs' names begin and end with, without the seed and what separates it from them."""
    if len(group) == 1:
        return group[0].name
    common = os.path.commonprefix([run.name for run in group])
    backwards = os.path.commonprefix([run.name[len(common) :][::-1] for run in group])
    end = re.search(r"[\W_].*", backwards[::-1])
    begin = re.sub(r"(?<=.)[\W_]+(seed)?[\W_]*\d*$", "", common)
    return (begin + (end[0] if end else "")).lstrip("_-.") or group[0].name


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_identity(run), []).append(run)
    groups = []
    for group in found.values():
        # Two runs of one seed are not two seeds.
        if len({_seeds(run) for run in group}) == len(group):
            groups.append(sorted(group, key=_seeds))
        else:
            groups += [[run] for run in group]
    return groups


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
    fields = config_fields(_without(left_out, run.config))
    imports = re.findall(r"^import .*", run.config, re.M)
    return json.dumps([facts, fields, imports], sort_keys=True)


def _without(names: Sequence[str], config: str) -> str:
    """config.gin without the bindings of some names; gin goes on with a long one in further lines.

    A name is that of a field, as in `RunConfig.model_dir`, or of its macro, `MODEL_DIR`.
    """
    binding = rf"^(?:\w+[./])*(?:{'|'.join(names)}) =.*\n?(?: .*\n?)*"
    return re.sub(binding, "", config, flags=re.I | re.M)


@dataclasses.dataclass(frozen=True)
class MeanCurve:
    """The mean of some curves over seeds; of one curve itself.

    Attributes:
      step, seconds: [T]; ascending.
      mean: [T], of the curves that go as far.
      low, high: [T], the band: the two curves, or one standard deviation either side of the mean
        for three and more; NaN for one curve, and where one of several has not got as far.
    """

    step: np.ndarray
    seconds: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def mean_curve(series: Sequence[Series], name: str) -> MeanCurve | None:
    """The mean over some runs at the steps of any; between its own steps a curve is straight.

    None where no run has a value.
    """
    series = [s for s in series if np.isfinite(s.get(name)).any()]
    if not series:
        return None
    step = np.unique(np.concatenate([s.step for s in series]))
    values, seconds = (
        np.stack([_at(step, s, x) for s, x in zip(series, numbers, strict=True)])
        for numbers in ([s.get(name) for s in series], [s.seconds for s in series])
    )
    there = np.stack([(step >= s.step[0]) & (step <= s.step[-1]) for s in series])
    mean, mean_seconds = (np.sum(x, axis=0, where=there) / there.sum(0) for x in (values, seconds))
    low, high = (np.where(there.all(0), edge, np.nan) for edge in band(values))
    return MeanCurve(step, mean_seconds, mean, low, high)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high [...] of values [S, ...] over seeds.

    They are the two values, or one standard deviation either side of the mean for three and more;
    NaN for one.
    """
    if len(values) == 1:
        unknown = np.full(values.shape[1:], np.nan)
        return unknown, unknown
    if len(values) == 2:
        return values.min(0), values.max(0)
    mean, spread = values.mean(0), values.std(0, ddof=1)
    return mean - spread, mean + spread


def _at(step: np.ndarray, series: Series, values: np.ndarray) -> np.ndarray:
    """The values [T] of a curve at other steps [U]."""
    return values if len(step) == len(series) else np.interp(step, series.step, values)


def band_caption(found: Sequence[Configuration], *, line: str = "Line", band: str = "band") -> str:
    """What `mean_curve` gives, drawn as `line` and `band`; empty where no run has another seed."""
    seeds = sorted({len(configuration.runs) for configuration in found} - {1})
    if not seeds:
        return ""
    bands = ["from the lower to the higher of 2 seeds"] if 2 in seeds else []
    if seeds[-1] > 2:
        numbers = " or ".join(str(n) for n in seeds if n > 2)
        bands.append(f"one standard deviation of {numbers} seeds either side of the mean")
    return f"{line} = mean over seeds; {band} = {', or '.join(bands)}."
