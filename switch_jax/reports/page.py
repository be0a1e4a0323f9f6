"""The report as one HTML page that loads nothing from anywhere."""

import html
from collections.abc import Sequence

from switch_jax.reports.charts import Section
from switch_jax.reports.downstream import Downstream, left_out, score_rows, upstream_rows
from switch_jax.reports.figures import colours, svg_data_url
from switch_jax.reports.runs import Run
from switch_jax.reports.summary import (
    QUALITY,
    Comparison,
    Rows,
    empty_rows,
    facts_table,
    final_numbers,
    held_out,
    task_numbers,
)
from switch_jax.schema import printable
from switch_jax.units import duration, perplexity, rounded

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 16px; color: #222; background: #fff;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 40px 0 12px; padding-top: 12px; border-top: 1px solid #ddd;
     overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0; }
p { margin: 8px 0; max-width: 75ch; overflow-wrap: anywhere; }
.quiet, figcaption { color: #555; font-size: .9rem; }
.grid { display: grid; gap: 28px 32px;
        grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
figure { margin: 0; }
.wide { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; display: block; margin-top: 6px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.card { flex: 1 1 230px; border: 1px solid #ddd; border-top: 5px solid; border-radius: 6px;
        padding: 10px 14px; overflow-wrap: anywhere; }
.card strong { font-size: 1.8rem; line-height: 1.2; display: block; }
.finding { border-left: 5px solid #222; background: #f5f5f5; padding: 10px 14px; margin: 16px 0;
           font-size: 1.1rem; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
th { text-align: left; font-weight: 600; }
td { text-align: right; min-width: 7em; overflow-wrap: anywhere;
     font-variant-numeric: tabular-nums; }
thead th + th { text-align: right; }
pre { overflow-x: auto; background: #f5f5f5; padding: 12px; font-size: .8rem; line-height: 1.4; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
"""


def title(runs: Sequence[Run]) -> str:
    return f"Training report: {', '.join(run.name for run in runs)}"


def render(
    runs: Sequence[Run],
    task: str | None,
    pairs: Sequence[Comparison],
    sections: Sequence[Section],
    downstream: Downstream,
) -> str:
    """The whole page.

    Args:
      runs: in the order of the user.
      task: the held-out task the runs are compared on.
      pairs: dense against sparse runs.
      sections: the charts.
      downstream: scores on downstream tasks.
    """
    scores, upstream = score_rows(downstream), upstream_rows(downstream)
    several_tasks = any(set(run.evals) - {task} for run in runs)
    parts = [
        f"<h1>{html.escape(title(runs))}</h1>",
        _headline(runs, task, pairs, downstream),
        *(_charts(section) for section in sections),
        "<h2>Final numbers</h2>",
        '<p class="quiet">The last logged value of each, unless it says otherwise.</p>',
        _table(runs, final_numbers(runs, task)),
    ]
    if scores or upstream:
        parts += [
            "<h2>Downstream numbers</h2>",
            '<p class="quiet">Best: at the checkpoint where the first metric of its task (of a '
            "mixture: the average) is highest. Last: at the last one that was evaluated.</p>",
            _table(runs, [*upstream, *scores]),
        ]
    if several_tasks:
        parts += [
            "<h2>Held-out numbers by task</h2>",
            '<p class="quiet">Last negative log perplexity in nats (higher is better), and token '
            "accuracy. &ldquo;all&rdquo; is the token-weighted mean over the tasks.</p>",
            _table(runs, task_numbers(runs)),
        ]
    parts += [
        "<h2>The runs</h2>",
        '<p class="quiet">All fields of run.json.</p>',
        _table(runs, [("folder", [printable(run.folder) for run in runs]), *facts_table(runs)]),
        "<h2>Operative gin config</h2>",
        '<p class="quiet">Every parameter that was in force, defaults included.</p>',
        *(_config(run) for run in runs),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title(runs))}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _headline(
    runs: Sequence[Run],
    task: str | None,
    pairs: Sequence[Comparison],
    downstream: Downstream,
) -> str:
    on = f"Held-out task: {html.escape(task)}. " if task else ""
    intro = (
        f'<p class="quiet">{on}Negative log perplexity is the mean log probability the model gives '
        "to the right token, in nats; higher (closer to 0) is better.</p>"
    )
    cards = "".join(
        _card(run, task, colour) for run, colour in zip(runs, colours(len(runs)), strict=True)
    )
    findings = "".join(f'<p class="finding">{html.escape(pair.sentence())}</p>' for pair in pairs)
    notes = list(dict.fromkeys(note for pair in pairs for note in pair.caveats()))
    notes += [f"{line}." for line in left_out(runs, downstream)]
    if note := empty_rows(runs, task):
        notes.append(note)
    if pairs:
        findings += (
            '<p class="quiet">Speed-up = steps (or time) of the dense run / steps (or time) the '
            "sparse run takes to the same held-out value (Fedus et al. 2022, footnote 9); between "
            "two evaluations the curve is taken as straight.</p>"
        )
    quiet = "".join(f'<p class="quiet">Note: {html.escape(note)}</p>' for note in notes)
    return f'{intro}\n<div class="cards">{cards}</div>\n{findings}\n{quiet}'


def _card(run: Run, task: str | None, colour: str) -> str:
    curve = held_out(run, task)
    name = html.escape(run.name)
    state = ""
    if run.unfinished:
        state = f" Still at step {run.last_step:,} of {run.facts['train_steps']:,}."
    if curve is None and run.evals:
        value, where = "–", f"Evaluated on {', '.join(run.evals)}, unlike other runs.{state}"
    elif curve is None:
        value, where = "–", f"Not evaluated on held-out text yet.{state}"
    else:
        last = curve.last(QUALITY)
        value = rounded(last)
        where = (
            f"{'latest' if run.unfinished else 'final'} held-out neg. log perplexity [nats] "
            f"(perplexity {perplexity(last)}) at step {curve.step[-1]:,}, "
            f"after {duration(float(curve.seconds[-1]))}.{state}"
        )
    return (
        f'<div class="card" style="border-top-color:{colour}"><b>{name}</b>'
        f'<strong>{value}</strong><span class="quiet">{html.escape(where)}</span></div>'
    )


def _charts(section: Section) -> str:
    figures = "\n".join(
        f"<figure{' class=wide' * chart.wide}><h3>{html.escape(chart.title)}</h3>"
        f"<figcaption>{html.escape(chart.caption)}</figcaption>"
        f'<img alt="{html.escape(chart.title)}" src="{svg_data_url(chart)}"></figure>'
        for chart in section.charts
    )
    return f'<h2>{html.escape(section.title)}</h2>\n<div class="grid">\n{figures}\n</div>'


def _table(runs: Sequence[Run], rows: Rows) -> str:
    head = "".join(f"<th>{html.escape(run.name)}</th>" for run in runs)
    body = "\n".join(
        f"<tr><th>{html.escape(label)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for label, cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _config(run: Run) -> str:
    name = html.escape(run.name)
    if not run.config:
        return f"<p>{name}: no config.gin in the run folder.</p>"
    return f"<details open><summary>{name}</summary><pre>{html.escape(run.config)}</pre></details>"
