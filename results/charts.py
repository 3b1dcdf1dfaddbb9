"""Vega-Lite charts as files, one source for interactive HTML, PNG, SVG and PDF; and what all figures share."""

from __future__ import annotations

import io
from typing import Any

import altair as alt

__all__ = ["IMAGE_FORMATS", "Chart", "empty_chart", "encode_chart", "inline", "title_over"]

IMAGE_FORMATS = ("html", "png", "svg", "pdf")

Chart = Any
"""An Altair chart of whatever composition; Altair's methods are not typed well enough for more."""


def encode_chart(chart: Chart, format_name: str) -> bytes:
    """The chart as one of `IMAGE_FORMATS`; HTML carries its libraries inside and needs no network.

    Raises ValueError for another format.
    """
    if format_name not in IMAGE_FORMATS:
        raise ValueError(f"figure format must be one of {', '.join(IMAGE_FORMATS)}, got {format_name!r}")
    styled = _styled(chart)
    if format_name == "html":
        return str(styled.to_html(inline=True)).encode()
    if format_name == "svg":
        text = io.StringIO()
        styled.save(text, format="svg")
        return text.getvalue().encode()
    image = io.BytesIO()
    # Vega draws at 72 points per inch; twice that stays sharp on a page. A PDF has no pixels.
    styled.save(image, format=format_name, **({"scale_factor": 2} if format_name == "png" else {}))
    return image.getvalue()


def inline(rows: list[dict[str, Any]]) -> alt.InlineData:
    """Rows as the data of a chart that needs no file beside it."""
    return alt.InlineData(values=rows)


def empty_chart(title: alt.TitleParams, words: str) -> Chart:
    """A chart that says why there is nothing to show."""
    text = alt.Chart(inline([{"text": words}]))
    return text.mark_text(fontSize=14, color="#777777").encode(text="text:N").properties(title=title, width=520, height=160)


def title_over(text: str, *parts: str) -> alt.TitleParams:
    """A figure's title, and under it those of `parts` that are not empty."""
    subtitle = " · ".join(part for part in parts if part)
    return alt.TitleParams(text, subtitle=subtitle or " ", anchor="start", fontSize=15, subtitleFontSize=12, offset=12)


def _styled(chart: Chart) -> Chart:
    return (
        chart.configure(font="Helvetica, Arial, sans-serif", background="white", padding=12)
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#e6e6e6", domainColor="#999")
        .configure_legend(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_title(subtitleColor="#666666")
    )
