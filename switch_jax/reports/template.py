"""Pages that load nothing from anywhere, by templates that extend base.html."""

from pathlib import Path
from typing import Any

import jinja2

from switch_jax.reports.drawing import svg_data_url


def render_template(template: Path, **values: Any) -> str:
    """The page of a template; values that have a special meaning in HTML are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["svg_data_url"] = svg_data_url
    return environment.get_template(template.name).render(**values)
