"""Runs beside each other: distributions and the throughput-latency frontier, each with its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from chunkprefill.metrics import waits as metrics
from chunkprefill.metrics.summary import DEFINITIONS, Spread
from chunkprefill.plots.checks import one_of, runs
from chunkprefill.plots.style import COLOURS, Picture, Table, Words, figure, picture, plain, writer
from chunkprefill.scheduling.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = tuple(zip(COLOURS.values(), ("-", "--", ":", "-.", (0, (1, 1)))))

METRICS: dict[str, Callable[[Trace], np.ndarray]] = {
    "ttft": metrics.ttft,
    "tbt": metrics.tbt,
    "tpot": metrics.tpot,
    "latency": metrics.latency,
    "stall": metrics.stalls,
    "interference": metrics.interference,
    "scheduling_delay": metrics.scheduling_delay,
}


def cdf(traces: Mapping[str, Trace], ax: Axes, metric: str = "tbt", *, tail: bool = False) -> None:
    """Distribution of a metric, a line a trace: the share of all values (y) that are at most x.

    tail: the share that is at least x instead, on a logarithmic axis, where rare long waits show. Each
    line ends in a dot at its maximum: a P99 can look fine beside a terrible worst case.
    """
    from matplotlib.ticker import LogLocator

    for (name, trace), (colour, dash) in zip(traces.items(), LOOKS):
        values = np.sort(METRICS[metric](trace))
        values = values[~np.isnan(values)]
        n = len(values)
        if not n:
            continue
        ranks = n - np.geomspace(1, n, 300) if tail else np.linspace(0, n - 1, 300)
        pick = np.unique(ranks.astype(int))  # a page need not hold millions
        share = (n - pick) / n if tail else (pick + 1) / n  # for the tail: of those at least as long
        ax.plot(values[pick], share, linestyle=dash, color=colour, label=name)
        ax.plot(values[-1:], share[-1:], "o", color=colour, clip_on=False)
    least = min((float(np.min(line.get_xdata())) for line in ax.lines), default=1.0)
    if least > 0:
        ax.set_xscale("log")
    else:
        ax.set_xscale("symlog", linthresh=1e-3)
    most = max((float(np.max(line.get_xdata())) for line in ax.lines), default=1.0)
    if least > 0 and most < 50 * least:  # one power of ten alone would be one tick, or none
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    _in_time(ax.xaxis)
    if tail:
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, 1.02)
    ax.set_xlabel(metric.upper() if len(metric) < 5 else metric.replace("_", " "))
    ax.set_title(f"share {'at least as long' if tail else 'at most as long'}", fontweight="normal")
    _names(ax)


def spread_table(
    traces: Mapping[str, Trace], metric: str = "tbt", *, say: Callable[[float, str], str] | None = None
) -> Table:
    """Percentiles and maximum of a metric by trace, with its definition. ValueError for an unknown metric."""
    runs(traces, steps=False)
    one_of("metric", metric, METRICS)
    say, rows = say or plain, []
    for name, trace in traces.items():
        s = Spread.of(METRICS[metric](trace))
        rows.append((name, *(say(x, "s") if s.n else "none" for x in (s.p50, s.p90, s.p99, s.max))))
    return Table(header=("", "median", "P90", "P99", "maximum"), rows=rows, caption=DEFINITIONS[metric])


def cdf_picture(
    traces: Mapping[str, Trace],
    metric: str = "tbt",
    *,
    height: int = 320,
    tail: bool = False,
    **words: Unpack[Words],
) -> Picture:
    """`cdf` with its table and the metric's definition. ValueError for no trace or an unknown metric.

    words: the `caption`; the `badge` ("simulated" unless given) and `source` say where the numbers come from.
    """
    table = spread_table(traces, metric, say=writer(words.setdefault("badge", "simulated")))
    said = "; ".join(f"{row[0]}: median {row[1]}, P99 {row[3]}, maximum {row[4]}" for row in table.rows)
    with figure(height / 100) as fig:
        cdf(traces, fig.add_subplot(), metric, tail=tail)
        return picture(fig, alt=f"Distribution of {metric}. {said}.", table=table, **words)


class Columns(NamedTuple):
    """The columns of a sweep's rows that a frontier draws: a line for each `by`, a dot for each `point`."""

    x: str = "output_tokens_per_s"
    y: str = "tbt_p99"
    by: str = "policy"
    point: str = "workload"


def frontier(
    rows: Iterable[Mapping[str, Any]], ax: Axes, columns: Columns, *, bound: float | None = None
) -> None:
    """Throughput against latency from the rows of a sweep. bound: a broken line at that y.

    Below and to the right is better.
    """
    x, y, by, point = columns
    for (name, series), (colour, dash) in zip(_series(rows, by).items(), LOOKS):
        xs, ys = [row[x] for row in series], [row[y] for row in series]
        ax.plot(xs, ys, linestyle=dash, marker="o", color=colour, label=name)
        if len(_series(rows, by)) == 1:
            for row, a, b in zip(series, xs, ys):
                ax.annotate(str(row[point]), (a, b), (4, 5), textcoords="offset points")
    if bound:
        ax.axhline(bound, color=COLOURS["trouble"], linestyle="--", linewidth=1.5)
        ax.annotate(
            "bound",
            (1, bound),
            (-2, 4),
            xycoords=("axes fraction", "data"),
            ha="right",
            textcoords="offset points",
            color=COLOURS["trouble"],
        )
    ax.set_ylim(bottom=0)
    ax.margins(x=0.08)
    ax.set_xlabel(_words(x))
    _in_time(ax.yaxis)
    ax.set_title(_words(y), fontweight="normal")
    if len(_series(rows, by)) > 1:
        _names(ax)


def frontier_table(
    rows: Iterable[Mapping[str, Any]],
    *,
    x: str = "output_tokens_per_s",
    y: str = "tbt_p99",
    by: str = "policy",
    point: str = "workload",
    say: Callable[[float, str], str] | None = None,
) -> Table:
    """The points of `frontier`, with the largest value beside a percentile where the rows have it."""
    say, worst = say or plain, y.rpartition("_")[0] + "_max"
    rows = _checked(rows, (x, y, by, point))
    more = [worst] if worst != y and all(worst in row for row in rows) else []
    body = [
        (row[by], row[point], say(row[x], ""), *(say(row[key], "s") for key in (y, *more))) for row in rows
    ]
    return Table(header=(by, point, *map(_words, (x, y, *more))), rows=body)


def frontier_picture(
    rows: Iterable[Mapping[str, Any]],
    *,
    bound: float | None = None,
    x: str = "output_tokens_per_s",
    y: str = "tbt_p99",
    by: str = "policy",
    point: str = "workload",
    **words: Unpack[Words],
) -> Picture:
    """`frontier` with its table.

    words: the `caption`; the `badge` ("simulated" unless given) and `source` say where the numbers come from.
    """
    columns = Columns(x, y, by, point)
    rows = _checked(rows, columns)
    say = writer(words.setdefault("badge", "simulated"))
    ends = "; ".join(
        f"{name}: {say(series[0][y], 's')} at {say(series[0][x], '')} to {say(series[-1][y], 's')} at "
        f"{say(series[-1][x], '')}"
        for name, series in _series(rows, by).items()
    )
    alt = f"{_words(y)} against {_words(x)}, by {by}. {ends}."
    table = frontier_table(rows, **columns._asdict(), say=say)
    with figure(4.2) as fig:
        frontier(rows, fig.add_subplot(), columns, bound=bound)
        return picture(fig, alt=alt, table=table, **words)


def _checked(rows: Iterable[Mapping[str, Any]], keys: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The rows as a list; ValueError where there are none, or where one lacks what is drawn."""
    rows = list(rows)
    if not rows:
        raise ValueError("no rows to draw: a frontier needs at least one")
    for i, row in enumerate(rows):
        if missing := [key for key in keys if key not in row]:
            raise ValueError(f"row {i} has no {missing[0]!r}; it has {', '.join(map(str, row))}")
    return rows


def _series(rows: Iterable[Mapping[str, Any]], by: str) -> dict[str, list[Mapping[str, Any]]]:
    out: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        out.setdefault(str(row[by]), []).append(row)
    return out


def _names(ax: Axes) -> None:
    """The lines' names above the axes, where no line runs."""
    fig = ax.get_figure()
    if fig is not None:
        handles, words = ax.get_legend_handles_labels()
        fig.legend(handles, words, loc="outside upper left", ncols=2, frameon=False)


def _in_time(axis: Any) -> None:
    """Ticks read `10 ms`."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value, "s")))
    axis.set_minor_formatter(NullFormatter())


def _words(name: str) -> str:
    """`TBT P99` from `tbt_p99`, `output tokens per s` from `output_tokens_per_s`."""
    short = {"tbt": "TBT", "ttft": "TTFT", "tpot": "TPOT", "p50": "P50", "p90": "P90", "p99": "P99"}
    return " ".join(short.get(word, word) for word in name.split("_"))
