"""One self-contained HTML page of a ledger: what was asked, what came out, and how to run it again.

A section is a function that is named in `_SECTIONS` and a template beside this module.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from importlib import resources

import altair as alt
import jinja2
import markupsafe
import vl_convert

from results.grid import ratio
from results.ledger import Ledger
from results.report_answers import answers_section
from results.report_claims import claims_section, statistics_section
from results.report_costs import costs_section, failures_section
from results.report_ensembles import ensembles_section
from results.report_figures import curves_section, figures_section
from results.report_frame import Section, Subject, load_subject, safe_json
from results.report_grid import grid_section
from results.report_provenance import provenance_section
from results.report_ranking import ranking_section
from results.report_routing import routing_section
from results.report_search import search_section
from results.report_summary import summary_section
from results.report_trials import facets, trials_section

__all__ = ["MOST_BYTES", "render_report"]

MOST_BYTES = 6_000_000
"""What the page of the demo's grid may have at most."""

_SECTIONS: tuple[Callable[[Subject], Section | None], ...] = (
    summary_section,
    ranking_section,
    ensembles_section,
    grid_section,
    figures_section,
    curves_section,
    claims_section,
    statistics_section,
    search_section,
    answers_section,
    routing_section,
    costs_section,
    failures_section,
    trials_section,
    provenance_section,
)
"""In the order of the page; None leaves the section out."""


def render_report(
    ledger: Ledger, *, generated_at: datetime, sweep_id: str | None = None, reload_seconds: float | None = None
) -> str:
    """The page as HTML; it loads nothing from the network, and may not.

    `sweep_id` chooses the grid or the search, the newest otherwise. With `reload_seconds` the page loads itself anew
    that often, for a file that is rewritten while a sweep runs. Raises QueryError for an unknown sweep.
    """
    with ledger.remembering():
        subject = load_subject(ledger, sweep_id)
        sections = [section for build in _SECTIONS if (section := build(subject)) is not None]
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    environment = _environment()
    scripts = [_vega_bundle(), _source("report.js")]
    return environment.get_template("report.html.jinja").render(
        storage=ledger.storage.shown,
        generated_at=generated_at,
        reload_seconds=reload_seconds,
        preset=subject.grid.preset,
        sweeps=subject.described,
        facets=facets(subject),
        sections=[(section, _body(environment, section)) for section in sections],
        blocks={
            **{f"figure-{name}-spec": safe_json(figure.spec) for name, figure in figures.items() if figure.is_drawn},
            **{name: safe_json(value) for section in sections for name, value in section.data.items()},
        },
        style=_source("report.css"),
        vega=scripts[0],
        script=scripts[1],
        hashes=[_content_hash(script) for script in scripts],
    )


def _body(environment: jinja2.Environment, section: Section) -> markupsafe.Markup:
    template = environment.get_template(f"report_{section.name}.jinja")
    return markupsafe.Markup(template.render(**section.values, figures=section.figures))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ratio"] = ratio
    return environment


def _source(name: str) -> str:
    return resources.files("results").joinpath(f"templates/{name}").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _vega_bundle() -> str:
    version = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
    # The stub demands a snippet, yet only without one does the bundle export vegaEmbed.
    bundle = str(vl_convert.javascript_bundle(vl_version=version))  # type: ignore[call-arg]
    # An HTML parser would take these for the end of the script, or for the start of a comment that hides it.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _content_hash(script: str) -> str:
    """As a Content-Security-Policy names a script that may run. Source: W3C, CSP Level 3, §8.3."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
