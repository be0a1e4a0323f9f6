"""The report as one HTML page that loads nothing from anywhere."""

import html
from collections.abc import Sequence

import numpy as np

from switch_jax.reports.charts import Section, sections
from switch_jax.reports.configurations import Configuration
from switch_jax.reports.distillation import HEADS, distillation_table
from switch_jax.reports.downstream import rows_over_seeds, score_rows, upstream_rows
from switch_jax.reports.expert_tokens import expert_tables
from switch_jax.reports.figures import svg_data_url
from switch_jax.reports.findings import Findings
from switch_jax.reports.held_out import QUALITY, own_held_out, own_task
from switch_jax.reports.runs import Run
from switch_jax.reports.summary import (
    Rows,
    comparison_table,
    config_differences,
    facts_table,
    final_numbers,
    task_numbers,
    threshold_table,
)
from switch_jax.reports.verdict import verdicts
from switch_jax.schema import printable
from switch_jax.units import duration, perplexity, rounded

_CSS = """
:root { color-scheme: light dark; --ink: #222; --quiet: #555; --ground: #fff; --edge: #ddd;
        --tint: #f5f5f5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --quiet: #aaa; --ground: #181818; --edge: #444; --tint: #262626; }
  /* Charts have a white ground: black and white change places, and hues stay. */
  figure img, .card::before { filter: invert(1) hue-rotate(180deg); }
  figure img { mix-blend-mode: screen; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 16px; color: var(--ink);
       background: var(--ground);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 40px 0 12px; padding-top: 12px; border-top: 1px solid var(--edge);
     overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0; }
p { margin: 8px 0; max-width: 75ch; overflow-wrap: anywhere; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.grid { display: grid; gap: 28px 32px;
        grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
figure { margin: 0; }
.wide { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; display: block; margin-top: 6px; }
.cards { display: grid; gap: 12px; margin: 16px 0;
         grid-template-columns: repeat(auto-fit, minmax(min(100%, 230px), 1fr)); }
.card { border: 1px solid var(--edge); border-radius: 6px; padding: 0 14px 10px;
        overflow-wrap: anywhere; }
.card::before { content: ""; display: block; height: 5px; margin: 0 -14px 10px;
                border-radius: 5px 5px 0 0; background: var(--colour); }
.card strong { font-size: 1.8rem; line-height: 1.2; display: block; }
.finding { border-left: 5px solid var(--ink); background: var(--tint); padding: 10px 14px;
           margin: 16px 0; font-size: 1.1rem; }
.finding p { max-width: 90ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--edge); vertical-align: top; }
th { text-align: left; font-weight: 600; }
td { text-align: right; min-width: 7em; overflow-wrap: anywhere;
     font-variant-numeric: tabular-nums; }
thead th + th { text-align: right; }
.words td, .words thead th { text-align: left; }
.words td { min-width: 5em; }
.words span { display: inline-block; margin-right: .8em; color: var(--quiet); }
.words code { color: var(--ink); background: var(--tint); padding: 0 .3em; border-radius: 3px; }
pre { overflow-x: auto; background: var(--tint); padding: 12px; font-size: .8rem;
      line-height: 1.4; }
details { margin: 12px 0; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
"""


_COMPARISON_NOTE = (
    '<p class="quiet">Speed-up = steps (or time) of the dense run / steps (or time) the sparse run '
    "takes to the same held-out value, here the dense run&rsquo;s final one (Fedus et al. 2022, "
    "footnote 9); between two evaluations the curve is taken as straight. Lead = the sparse "
    "run&rsquo;s value less the dense run&rsquo;s at the last step that both have. Several seeds "
    "are compared seed by seed: mean (lowest to highest), of those that are finished, if any "
    "are.</p>"
)


def render(findings: Findings) -> str:
    """The whole page."""
    found, task, scores = findings.configurations, findings.task, findings.downstream
    runs = findings.runs
    names = [run.name for run in runs]
    downstream = [*upstream_rows(scores), *score_rows(scores)]
    over_seeds = rows_over_seeds(found, scores)
    several_tasks = any(set(run.evals) - {task} for run in runs)
    students = distillation_table(found, task)
    threshold = findings.threshold
    parts = [
        f"<h1>{html.escape(findings.title)}</h1>",
        _headline(findings),
        "" if threshold is None else _table(*threshold_table(found, task, threshold)),
        _table(HEADS, students) if students else "",
        *(_charts(section) for section in sections(found, task, scores)),
        *(expert_tables(run.name, run.expert_tokens) for run in map(_with_experts, found)),
    ]
    parts += [
        "<h2>Final numbers</h2>",
        '<p class="quiet">The last logged value of each, unless it says otherwise.</p>',
        _table(names, final_numbers(runs, task)),
    ]
    if over_seeds:
        parts += [
            "<h2>Downstream over seeds</h2>",
            '<p class="quiet">Mean ± standard deviation over the seeds of a configuration: of the '
            "checkpoints that they started from, and of the scores at the best checkpoint of "
            "each.</p>",
            _table([configuration.title for configuration in found], over_seeds),
        ]
    if downstream:
        parts += [
            "<h2>Downstream numbers</h2>",
            '<p class="quiet">Best: at the checkpoint where the first metric of its task (of a '
            "mixture: the average) is highest. Last: at the last one that was evaluated.</p>",
            _table(names, downstream),
        ]
    if several_tasks:
        parts += [
            "<h2>Held-out numbers by task</h2>",
            '<p class="quiet">Last negative log perplexity in nats (higher is better), and token '
            "accuracy. &ldquo;all&rdquo; is the token-weighted mean over the tasks.</p>",
            _table(names, task_numbers(runs)),
        ]
    parts += [
        "<h2>The runs</h2>",
        '<p class="quiet">All fields of run.json.</p>',
        _table(names, [("folder", [printable(run.folder) for run in runs]), *facts_table(runs)]),
        "<h2>Operative gin config</h2>",
    ]
    if differences := config_differences(runs):
        parts += [
            '<p class="quiet">What differs between the runs:</p>',
            _table(names, differences),
        ]
    parts += [
        '<p class="quiet">Every parameter that was in force, defaults included:</p>',
        *(_config(run, is_open=len(runs) == 1) for run in runs),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(findings.title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _headline(findings: Findings) -> str:
    comparisons, task = findings.comparisons, findings.task
    on = f"Held-out task: {html.escape(task)}. " if task else ""
    intro = (
        f'<p class="quiet">{on}Negative log perplexity is the mean log probability the model gives '
        "to the right token, in nats; higher (closer to 0) is better.</p>"
    )
    words = "".join(f"<p>{html.escape(verdict)}</p>" for verdict in verdicts(comparisons))
    if words:
        words = f'<div class="finding">{words}</div>'
    cards = "".join(_card(configuration, task) for configuration in findings.configurations)
    table = ""
    if comparisons:
        table = _table(*comparison_table(comparisons)) + _COMPARISON_NOTE
    sentences = [f"Note: {note.removesuffix('.')}." for note in findings.notes]
    notes = "".join(f'<p class="quiet">{html.escape(sentence)}</p>' for sentence in sentences)
    return f'{words}\n{intro}\n<div class="cards">{cards}</div>\n{table}\n{notes}'


def _with_experts(configuration: Configuration) -> Run:
    """The first run of which the tokens of the experts are known; the first, if there is none."""
    runs = configuration.runs
    return next((run for run in runs if run.expert_tokens), runs[0])


def _card(configuration: Configuration, task: str | None) -> str:
    runs = configuration.runs
    going = [run for run in runs if run.unfinished]
    state = "".join(
        f" {'Still' if len(runs) == 1 else f'{run.name} is still'} at step {run.last_step:,} of "
        f"{run.facts['train_steps']:,}."
        for run in going
    )
    curves = [curve for run in runs if (curve := own_held_out(run, task)) is not None]
    if not curves:
        value, where = "–", "Not evaluated on held-out text yet."
    else:
        step = max(curve.step[-1] for curve in curves)
        furthest = [curve for curve in curves if curve.step[-1] == step]
        last = [curve.last(QUALITY) for curve in furthest]
        mean = float(np.mean(last))
        value = rounded(mean)
        where = (
            f"{'latest' if len(going) == len(runs) else 'final'} held-out neg. log perplexity "
            f"[nats] (perplexity {perplexity(mean)}) at step {step:,}, "
            f"after {duration(float(np.mean([curve.seconds[-1] for curve in furthest])))}."
        )
        if task is None:
            where += f" Of {own_task(runs[0], task)}, unlike other runs."
        if len(last) > 1:
            where += f" Mean of {len(last)} seeds, {rounded(min(last))} to {rounded(max(last))}."
    return (
        f'<div class="card" style="--colour:{configuration.colour}">'
        f"<b>{html.escape(configuration.label)}</b><strong>{value}</strong>"
        f'<span class="quiet">{html.escape(where + state)}</span></div>'
    )


def _charts(section: Section) -> str:
    figures = "\n".join(
        f"<figure{' class=wide' * chart.wide}><h3>{html.escape(chart.title)}</h3>"
        f"<figcaption>{html.escape(chart.caption)}</figcaption>"
        f'<img alt="{html.escape(chart.title)}" src="{svg_data_url(chart)}"></figure>'
        for chart in section.charts
    )
    title, grid = html.escape(section.title), f'<div class="grid">\n{figures}\n</div>'
    if section.folded:
        return f"<details><summary>{title}</summary>\n{grid}\n</details>"
    return f"<h2>{title}</h2>\n{grid}"


def _table(columns: Sequence[str], rows: Rows) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
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


def _config(run: Run, is_open: bool) -> str:
    name = html.escape(run.name)
    if not run.config:
        return f"<p>{name}: no config.gin in the run folder.</p>"
    text = html.escape(run.config)
    return f"<details{' open' * is_open}><summary>{name}</summary><pre>{text}</pre></details>"
