"""How a picture looks and travels: inline SVG in the page's ink, with alt text, caption, badge and table."""

from __future__ import annotations

import io
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Any, Required, TypedDict, Unpack

from chunkprefill.measure import MEASURED_SVG, measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: One meaning a colour, in the whole book (Okabe-Ito: told apart by colour-blind eyes too).
COLOURS = {
    "prefill": "#0072B2",
    "decode": "#E69F00",
    "scheduling": "#009E73",
    "trouble": "#D55E00",
    "recompute": "#CC79A7",
}
#: Where a picture's numbers come from.
BADGES = {
    "measured": "measured here",
    "counted": "counted here",
    "simulated": "simulated",
    "published": "published",
    "recorded": "recorded run",
    "drawing": "drawing",
}
WIDTH = 500  # user units; with 18 of them to a letter, text is still 9 pt on a phone 390 pixels wide
TYPE = 18
#: matplotlib's settings for a figure of `figsize=(WIDTH / 100, ...)`: type in points, 100 units to the inch.
LOOK: dict[Any, Any] = {
    **dict.fromkeys(
        ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 12.5
    ),
    **dict.fromkeys(
        ("axes.spines.top", "axes.spines.right", "xtick.minor.bottom", "ytick.minor.left"), False
    ),
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "lines.linewidth": 2.5,
    "lines.markersize": 6,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "chunkprefill",  # the same figure gives the same ids
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A small table that a screen reader, a phone and `print` can all read.

    `header` and each of `rows` have the same number of cells; a cell is shown as `str(cell)`.
    Raises ValueError for a row of another length.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(f"table row {i}: {len(row)} cells, {len(self.header)} columns")

    def __str__(self) -> str:
        lines = [list(map(str, self.header)), *(list(map(str, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = ("  ".join(cell.rjust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
        return "\n".join([self.caption, *text] if self.caption else text)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in self.header)
        body = "".join(
            "<tr>"
            + f'<th scope="row">{escape(str(row[0]))}</th>'
            + "".join(f"<td>{escape(str(cell))}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        # A wide table may scroll on a phone, and what scrolls must be reachable by keyboard.
        name = f' role="group" tabindex="0" aria-label="{escape(self.caption or "table")}"'
        return (
            f'<div class="cp-table" style="overflow-x:auto"{name if len(self.header) > 3 else ""}>'
            f'<table class="table">{caption}'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )


class Tabular(ABC):
    """A result that shows itself as its `table()`, in print and on a page. Its dataclasses set repr=False."""

    @abstractmethod
    def table(self) -> Table:
        """The numbers, as a table."""

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure ready for any page: an SVG string and what belongs beside it.

    svg:     one `<svg>` element; ink is `currentColor`, the ground transparent
    alt:     what it shows, numbers included, for readers who do not see it
    caption: what to see in it
    badge:   a key of `BADGES`; `source` names the publication or machine
    table:   the same numbers as text, behind a fold
    """

    svg: str
    alt: str
    caption: str
    badge: str = "measured"
    source: str = ""
    table: Table | None = None
    width: int = field(default=WIDTH, repr=False)  # user units of the drawing; shown at most this wide

    def __post_init__(self) -> None:
        if self.badge not in BADGES:
            raise ValueError(f"badge {self.badge!r} is unknown; choose one of {', '.join(BADGES)}")
        if not self.alt.strip() or not self.caption.strip():
            raise ValueError("a picture needs alt text and a caption, neither of them empty")

    def __str__(self) -> str:
        text = f"[{self.badge_text}] {self.caption}\n{self.alt}"
        return f"{text}\n{self.table}" if self.table else text

    __repr__ = __str__

    @property
    def badge_text(self) -> str:
        """`measured here`, or `published: the source`."""
        return BADGES[self.badge] + (f": {self.source}" if self.source else "")

    def image(self) -> str:
        """The `<svg>` alone, named by its alt text: what an explorer shows as one frame."""
        mark = f"{MEASURED_SVG} " if self.badge == "measured" else ""  # another run draws another picture
        return self.svg.replace("<svg ", f'<svg role="img" {mark}aria-label="{escape(self.alt)}" ', 1)

    def _repr_html_(self) -> str:
        table = ""
        if self.table:
            table = f"<details><summary>The numbers as a table</summary>{self.table._repr_html_()}</details>"
        return (
            f'<figure class="cp-figure" style="margin:1em 0;max-width:{self.width}px">'
            f"{self.image()}"
            '<figcaption style="color:inherit;text-align:start">'
            f'<span class="cp-badge cp-badge-{self.badge}">{escape(self.badge_text)}</span> '
            f"{escape(self.caption)}</figcaption>{table}</figure>"
        )


class Words(TypedDict, total=False):
    """What every function that draws takes and hands on to `Picture`, which says what each is."""

    caption: Required[str]
    badge: str
    source: str


class WordsAndAlt(Words):
    """`Words`, and the alt text of a picture whose message only the caller knows."""

    alt: Required[str]


def plain(value: float | None, unit: str = "s") -> str:
    """A number that was priced or counted, as `measured` takes it: `12.3 ms`, `1,234 MiB`, `25%`; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    if unit == "s":
        ms = 0 < abs(value) < 0.9995
        return f"{value * 1e3:,.3g} ms" if ms else f"{float(f'{value:.3g}'):,g} s"
    if unit == "%":
        return f"{100 * value:,.0f}%" if value >= 0.1 else f"{100 * value:.2g}%"
    return (f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}") + (f" {unit}" if unit else "")


def writer(badge: str, write: Callable[..., str] = plain) -> Callable[..., str]:
    """How a picture writes its numbers: as `measured` if its badge says so, else by `write`."""
    return measured if badge == "measured" else write


class Edge(TypedDict, total=False):
    """How a box looks, apart from its fill: `dash` such as `"4 3"` makes its edge broken, `opacity` is the fill's."""

    stroke: str
    opacity: float
    radius: float
    dash: str


@dataclass(frozen=True)
class Scale:
    """Values from `begin` to `end`, laid out from `left` to `right`; values beyond an end are drawn at it.

    ValueError where the axis has no length, as for a run whose every step cost 0 s.
    """

    begin: float
    end: float
    left: float = 0.0  # user units, as `right`
    right: float = WIDTH

    def __post_init__(self) -> None:
        if not self.begin < self.end:
            raise ValueError(
                f"an axis from {self.begin:g} to {self.end:g} has no length: nothing can be drawn"
            )

    def x(self, value: float) -> float:
        """Where a value stands."""
        share = (min(max(value, self.begin), self.end) - self.begin) / (self.end - self.begin)
        return self.left + share * (self.right - self.left)


class Canvas:
    """A drawing in user units (about a pixel at full width), y downwards. `.svg` is the result.

    Colours are keys of `COLOURS`, `"ink"` (the page's text colour) or `"none"`.
    """

    def __init__(self, height: float, *, width: float = WIDTH) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        fill: str = "none",
        **look: Unpack[Edge],
    ) -> None:
        """A box; look: `stroke`, `opacity` of the fill, `radius` of its corners, a `dash` such as `"4 3"`."""
        if unknown := look.keys() - Edge.__annotations__.keys():
            raise TypeError(
                f"a box has no {', '.join(sorted(unknown))}; it has {', '.join(Edge.__annotations__)}"
            )
        stroke, dash = look.get("stroke", "none"), look.get("dash", "")
        radius, opacity = look.get("radius", 0), look.get("opacity", 1.0)
        edge = f' stroke="{_colour(stroke)}" stroke-width="1.5"' if stroke != "none" else ""
        edge += f' stroke-dasharray="{dash}"' if dash else ""
        edge += f' rx="{radius:g}"' if radius else ""
        edge += f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
        self._parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}" fill="{_colour(fill)}"{edge}/>'
        )

    def key(self, x: float, y: float, name: str, fill: str, **look: Unpack[Edge]) -> None:
        """A swatch with its top at y, and beside it the name of what its colour stands for."""
        look.setdefault("radius", 3)
        self.rect(x, y, 18, 18, fill, **look)
        self.text(x + 26, y + 15, name)

    def boxes(
        self, places: Sequence[tuple[float, float, float, float]], fill: str, *, dash: str = ""
    ) -> None:
        """Many boxes (x, y, w, h) of one colour as one path: a page holds many frames of many steps.

        dash: a broken edge in the page's ink, such as `"3 2"`.
        """
        if not places:
            return
        path = "".join(f"M{_n(x)} {_n(y)}h{_n(w)}v{_n(h)}h{_n(-w)}z" for x, y, w, h in places)
        edge = f' stroke="currentColor" stroke-width="1" stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(f'<path d="{path}" fill="{_colour(fill)}"{edge}/>')

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        stroke: str = "ink",
        *,
        width: float = 1.5,
        opacity: float = 1.0,
        dash: str = "",
    ) -> None:
        """A straight stroke."""
        more = (f' stroke-dasharray="{dash}"' if dash else "") + (
            f' opacity="{opacity:g}"' if opacity < 1 else ""
        )
        self._parts.append(
            f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" '
            f'stroke="{_colour(stroke)}" stroke-width="{width:g}"{more}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = TYPE,
        anchor: str = "start",
        fill: str = "ink",
        bold: bool = False,
    ) -> None:
        """Words whose baseline is at y; `anchor` is start, middle or end. `fill` may be `#fff` or `#000`."""
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{_colour(fill)}"{weight}>{escape(words)}</text>'
        )

    def axis(
        self,
        scale: Scale,
        y: float,
        marks: Mapping[float, str],
        *,
        width: float = 1.0,
        drop: float = 24,
        inside: float = 8,
    ) -> None:
        """A line at y with its marks, {value: words}.

        drop:   from there to the words' baseline
        inside: how far their middles stay within the drawing
        """
        self.line(scale.left, y, scale.right, y, width=width)
        for value, words in marks.items():
            x = scale.x(value)
            self.line(x, y, x, y + 5, width=width)
            self.text(min(max(x, inside), self.width - inside), y + drop, words, anchor="middle")

    @property
    def svg(self) -> str:
        """The whole drawing as one `<svg>` element."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(self.width)} {_n(self.height)}" '
            'style="width:100%;height:auto;overflow:visible" font-family="inherit">'
            + "".join(self._parts)
            + "</svg>"
        )

    def picture(self, **words: Any) -> Picture:
        """The drawing with its alt text, caption, badge and table: see `Picture`."""
        return Picture(svg=self.svg, width=int(self.width), **words)


@contextmanager
def figure(inches: float) -> Iterator[Figure]:
    """A matplotlib figure as wide as a picture and `inches` high; within the block, LOOK is in force."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LOOK):
        yield Figure(figsize=(WIDTH / 100, inches), layout="constrained")


def picture(fig: Figure, **words: Any) -> Picture:
    """A matplotlib figure as a `Picture`: black becomes `currentColor`, text stays text, ids are stable.

    Takes the fields of `Picture` other than `svg`. The same figure gives the same bytes.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context(LOOK):
        fig.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return Picture(svg=_restyle(out.getvalue()), width=round(fig.get_figwidth() * 100), **words)


def _restyle(svg: str) -> str:
    """What matplotlib wrote, without its prologue, metadata, fixed size, fixed ink and page-wide ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    # Its one rule of style would leak to the page.
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.S)
    svg = re.sub(r'(<svg [^>]*?) ?width="[^"]*pt" ?', r"\1 ", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?) ?height="[^"]*pt" ?', r"\1 ", svg, count=1)
    svg = svg.replace(
        "<svg ",
        '<svg style="width:100%;height:auto;overflow:visible" font-family="inherit" fill="currentColor" ',
        1,
    )
    svg = re.sub(r"#0{6}\b", "currentColor", svg)
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    # Several figures share a page, and "axes_1" would be in each: give every id this figure's own prefix.
    own = "f" + sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{own}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{own}-", svg)
    return re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->", "", svg, flags=re.S)).strip()


def round_step(least: float, of: Sequence[float] = (1, 2, 5)) -> float:
    """The distance between an axis's ticks: one of the numbers times a power of ten, and at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * k for k in (*of, 10) if power * k >= least * (1 - 1e-9))


def ticks(end: float, n: int, of: Sequence[float] = (1, 2, 5)) -> list[float]:
    """Round values from 0 to `end`, about `n` of them."""
    step = round_step(end / n, of)
    return [i * step for i in range(int(end / step + 1e-9) + 1)]


def _colour(name: str) -> str:
    return "currentColor" if name == "ink" else COLOURS.get(name, name)


def _n(x: float) -> str:
    return f"{x:.1f}".rstrip("0").rstrip(".")
