"""Writes numbers, times and tables as text, and computes perplexity."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

_MEMORY_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def perplexity(neg_log_perplexity: float) -> float:
    """Returns the exponential of the cross-entropy, infinity if that overflows."""
    with np.errstate(over="ignore"):
        return float(np.exp(-np.float64(neg_log_perplexity)))


def rounded(value: float) -> str:
    """Writes three digits: 0.12345 -> "0.123", 1234.5 -> "1.23e+03"."""
    return f"{value:.3g}" if abs(value) >= 1000 else f"{value:.3f}"


def percent(fraction: float) -> str:
    """Writes a fraction in per cent: 0.12345 -> "12.35 %"."""
    return f"{100 * fraction:.2f} %"


def count(value: float) -> str:
    """Writes a number with a suffix: 1234567 -> "1.23 M"."""
    for size, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def counted(number: int, noun: str) -> str:
    """Writes a number of things: (1, "chip") -> "1 chip", (1024, "chip") -> "1,024 chips"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def memory_size(size: float) -> str:
    """Writes a number of bytes: 3 * 2**30 -> "3.0 GiB", 50_000_000 -> "47.7 MiB"."""
    large_enough = (unit for unit in _MEMORY_UNITS if size >= unit[1] / 10)
    name, of_unit = next(large_enough, _MEMORY_UNITS[-1])
    return f"{size / of_unit:,.1f} {name}"


def as_text(value: object) -> str:
    """Writes a value of a JSON file, unrounded: 1234.5 -> "1,234.5", {"a": 1} -> "a 1"."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return " · ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:,.15g}"
    if type(value) is int:
        return f"{value:,}"
    return str(value)


def duration(seconds: float) -> str:
    """Writes a time in seconds with its unit: 109.0 -> "109 s", 5400.0 -> "90 min"."""
    unit, size = time_unit(seconds)
    return f"{seconds / size:.3g} {unit}"


def time_unit(seconds: float) -> tuple[str, float]:
    """Chooses the unit that shows these seconds in few digits; returns it and its seconds."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 3 * size:
            return unit, size
    return "s", 1.0


def beside_baseline(
    metrics: Mapping[str, float | None], majority_baseline: Mapping[str, float | None]
) -> str:
    """Writes a task's metrics: {"f1": 48.25}, {"f1": 52.0} -> "f1 48.25 (majority baseline 52)".

    A metric that is None is "-".
    """
    parts = []
    for name, value in metrics.items():
        parts.append(f"{name} {'-' if value is None else f'{value:.4g}'}")
        if (baseline := majority_baseline.get(name)) is not None:
            parts[-1] += f" (majority baseline {baseline:.4g})"
    return ", ".join(parts)


def printable(text: str) -> str:
    """Replaces by U+FFFD what a page cannot show, and control characters of terminals."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Writes rows as lines with aligned columns; `right` are those aligned on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
