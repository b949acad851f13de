"""Charts as inline SVG: coloured by CSS classes, so that they follow the page into dark mode; equal for equal data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tunesmith.domain.models import Measure

WIDTH = 480
"""Units of a chart's width. Charts scale with the page; at this width, text stays legible on a phone."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 30


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a line chart. `kind` is its CSS class."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]
    marked: bool = False
    """Whether each point gets a dot: for few, meaningful points."""


def line_chart(series: Sequence[Series], *, x_title: str, y_title: str, height: int = 250) -> Markup:
    """Lines over a common x axis; series without points are left out."""
    drawn = [s for s in series if s.points]
    if not drawn:
        return Markup("")
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 5)
    x_axis = _Axis(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    y_axis = _Axis(min(*ys, *y_ticks), max(*ys, *y_ticks), height - _BOTTOM, _TOP)
    parts = _grid(x_axis, y_axis, x_ticks, y_ticks, height)
    parts += [_text(WIDTH - _RIGHT, height - 2, x_title, "tick end"), _text(_LEFT + 6, _TOP + 10, y_title, "tick")]
    for one in drawn:
        points = [(x_axis.at(x), y_axis.at(y)) for x, y in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(one.kind, path))
        if one.marked:
            dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
            parts += [
                dot.format(one.kind, x, y, f"{one.name} {value:.3f} at {step:g}")
                for (x, y), (step, value) in zip(points, one.points, strict=True)
            ]
    return _svg(parts, height, ", ".join(s.name for s in drawn))


def column_chart(groups: Sequence[str], shares: Mapping[str, Sequence[float]], *, height: int = 230) -> Markup:
    """Columns side by side in each group, one of each kind; heights are shares."""
    top = max((share for row in shares.values() for share in row), default=0.0)
    if not groups or not top:
        return Markup("")
    y_ticks = ticks(0, top, 4)
    y_axis = _Axis(0, max(top, *y_ticks), height - _BOTTOM, _TOP)
    parts = _grid(None, y_axis, [], y_ticks, height, percent=True)
    room = (WIDTH - _LEFT - _RIGHT) / len(groups)
    width = room * 0.8 / len(shares)
    every = math.ceil(len(groups) / 9)
    for g, group in enumerate(groups):
        left = _LEFT + g * room + room * 0.1
        for k, (kind, row) in enumerate(shares.items()):
            y = y_axis.at(row[g])
            title = f"{group}: {100 * row[g]:.1f} % ({kind})"
            parts.append(_bar(kind, left + k * width, y, width * 0.92, height - _BOTTOM - y, title))
        if g % every == 0:
            parts.append(_text(left + room * 0.4, height - _BOTTOM + 16, group.split("-")[0], "tick middle"))
    return _svg(parts, height, "distribution")


def bar_chart(rows: Sequence[str], shares: Mapping[str, Sequence[float]]) -> Markup:
    """Horizontal bars, one of each kind a row; lengths are shares."""
    top = max((share for row in shares.values() for share in row), default=0.0)
    if not rows or not top:
        return Markup("")
    left, thickness = 132, 7
    pitch = thickness * len(shares) + 9
    height = pitch * len(rows) + _TOP + 22
    x_ticks = ticks(0, top, 5)
    axis = _Axis(0, max(top, *x_ticks), left, WIDTH - _RIGHT - 8)
    parts: list[Markup] = []
    for tick in x_ticks:
        x = axis.at(tick)
        parts.append(_rule(x, _TOP, x, height - 20))
        parts.append(_text(x, height - 5, f"{100 * tick:g} %", "tick middle"))
    for r, name in enumerate(rows):
        y = _TOP + r * pitch
        shown = name if len(name) <= 17 else f"{name[:16]}…"
        parts.append(_text(left - 8, y + thickness * len(shares) / 2 + 4, shown, "label end"))
        for k, (kind, row) in enumerate(shares.items()):
            title = f"{name}: {100 * row[r]:.1f} % ({kind})"
            parts.append(_bar(kind, left, y + k * thickness, axis.at(row[r]) - left, thickness - 1, title))
    return _svg(parts, height, "shares by word")


def interval_chart(measures: Mapping[str, Measure], *, low: float, high: float) -> Markup:
    """A small strip: one dot with its interval for each kind, on an axis from `low` to `high`."""
    width, pitch, edge = 150, 11, 6
    height = pitch * len(measures) + 4
    axis = _Axis(low, high, edge, width - edge)
    parts = [Markup('<rect class="strip" x="0" y="0" width="{}" height="{}" rx="4"/>').format(width, height)]
    for k, (kind, measure) in enumerate(measures.items()):
        y = 2 + pitch * (k + 0.5)
        left, right = (axis.at(min(max(end, low), high)) for end in (measure.low, measure.high))
        parts.append(
            Markup('<line class="whisker {}" x1="{:.1f}" y1="{}" x2="{:.1f}" y2="{}"/>').format(kind, left, y, right, y)
        )
        parts.append(
            Markup('<circle class="dot {}" cx="{:.1f}" cy="{}" r="3.2"/>').format(kind, axis.at(measure.value), y)
        )
    return Markup(
        '<svg class="mini" viewBox="0 0 {w} {h}" width="{w}" height="{h}" aria-hidden="true">{}</svg>'
    ).format(Markup("").join(parts), w=width, h=height)


def ticks(low: float, high: float, number: int) -> list[float]:
    """About `number` round values from `low` to `high`; at least one."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / number
    size = 10 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)] or [low]


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


def _grid(
    x_axis: _Axis | None,
    y_axis: _Axis,
    x_ticks: Iterable[float],
    y_ticks: Iterable[float],
    height: int,
    *,
    percent: bool = False,
) -> list[Markup]:
    parts = []
    for tick in y_ticks:
        y = y_axis.at(tick)
        parts.append(_rule(_LEFT, y, WIDTH - _RIGHT, y))
        parts.append(_text(_LEFT - 6, y + 4, f"{100 * tick:g} %" if percent else f"{tick:g}", "tick end"))
    if x_axis is not None:
        parts += [_text(x_axis.at(t), height - _BOTTOM + 16, f"{t:g}", "tick middle") for t in x_ticks]
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="rule" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(x1, y1, x2, y2)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)


def _bar(kind: str, x: float, y: float, width: float, height: float, title: str) -> Markup:
    return Markup(
        '<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1"><title>{}</title></rect>'
    ).format(kind, x, y, max(width, 0), max(height, 0), title)


def _svg(parts: Sequence[Markup], height: int, label: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, Markup("").join(parts)
    )
