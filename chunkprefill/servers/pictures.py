"""What clients saw, drawn: a probe's round to scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chunkprefill.measure import measured
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Table
from chunkprefill.servers.events import Stream
from chunkprefill.servers.judge import Seen

MARGIN, ROW = 112.0, 34.0  # user units: left of the axis, and of one row
MOST_ROWS = 9


def seen_picture(probe: Seen, *, verdict: str, source: str, caption: str = "") -> Picture:
    """The last round of a probe, to scale: waiting as a line, tokens as ticks, the longest silence marked.

    Raises ValueError where no round with a document was run.
    """
    if not probe.rounds:
        raise ValueError("no round with a document was run: there is nothing to draw")
    name = probe.rounds[-1]
    document = probe.of(name, "document")
    rows = [*probe.of(name, "chat"), *document, *probe.of(name, "late")][:MOST_ROWS]
    begin = min(document[0].sent, *(s.sent for s in rows if s.kind != "chat"))
    end = max([s.tokens[0] for s in rows if s.tokens and s.kind != "chat"] or [begin + 1e-3])
    lead = 0.12 * (end - begin)
    low, high = begin - lead, end + lead
    scale = (WIDTH - MARGIN) / (high - low)
    canvas = Canvas(ROW * len(rows) + 62)

    def x(t: float) -> float:
        return MARGIN + (min(max(t, low), high) - low) * scale

    silences = {s.name: _silence(s, low, high) for s in rows if s.kind == "chat"}
    worst = max(silences, key=lambda n: silences[n][1] - silences[n][0], default="")
    for i, stream in enumerate(rows):
        y = 26 + ROW * i
        canvas.text(0, y + 6, stream.name)
        _one(canvas, stream, x, y, (low, high))
        if stream.name == worst:
            a, b = silences[worst]
            canvas.line(x(a), y - 13, x(b), y - 13, "trouble", width=2.5)
            words = f"silent {measured(b - a)}"
            left = x(b) < 0.6 * WIDTH
            canvas.text(x(b) + 6 if left else x(a) - 6, y - 8, words, anchor="start" if left else "end")
    foot = 26 + ROW * len(rows)
    canvas.line(MARGIN, foot, WIDTH, foot)
    for share in (0.0, 0.5, 1.0):
        t = begin + share * (end - begin)
        canvas.line(x(t), foot, x(t), foot + 5)
        canvas.text(x(t), foot + 24, f"{t - begin:.2g} s", anchor="middle" if share < 1 else "end")
    table = _rows_table(rows)
    said = "; ".join(" ".join(map(str, row)) for row in table.rows)
    return canvas.picture(
        alt=f"Requests of one round as their client saw them: {said}. Verdict: {verdict}.",
        caption=caption
        or "A row a request, from the document's arrival on. Ticks are tokens, a line before them is waiting "
        f"for the first one. Verdict: {verdict}.",
        badge="recorded",
        source=source,
        table=table,
    )


def _silence(stream: Stream, low: float, high: float) -> tuple[float, float]:
    gaps = [(a, b) for a, b in zip(stream.tokens, stream.tokens[1:]) if b > low and a < high]
    return max(gaps, key=lambda gap: gap[1] - gap[0], default=(low, low))


def _one(
    canvas: Canvas, stream: Stream, x: Callable[[float], float], y: float, window: tuple[float, float]
) -> None:
    low, high = window
    first = stream.tokens[0] if stream.tokens else high
    if first > low:
        canvas.line(x(max(stream.sent, low)), y, x(first), y, "trouble", width=2)
    fill = "prefill" if stream.kind == "document" else "decode"
    for t in stream.tokens:
        if low <= t <= high:
            canvas.rect(x(t) - 1, y - 8, 2.2, 16, fill)


def _rows_table(rows: Sequence[Stream]) -> Table:
    said = []
    for stream in rows:
        longest = max(stream.gaps, default=None)
        first = "no first token" if stream.ttft is None else measured(stream.ttft)
        said.append((stream.name, first, "–" if longest is None else measured(longest)))
    return Table(header=("request", "first token after", "longest gap"), rows=said)
