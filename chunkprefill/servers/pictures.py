"""What clients saw, drawn: a probe's round to scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from chunkprefill.measure import measured
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Scale, Table
from chunkprefill.servers.judge import Seen
from chunkprefill.servers.stream import Stream

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
    if end == begin:  # by the client's clock all came at once
        end += 1e-3
    lead = 0.12 * (end - begin)
    scale = Scale(begin - lead, end + lead, MARGIN)
    canvas = Canvas(ROW * len(rows) + 62)
    silences = {s.name: _silence(s, scale) for s in rows if s.kind == "chat"}
    worst = max(silences, key=lambda n: silences[n][1] - silences[n][0], default="")
    for i, stream in enumerate(rows):
        y = 26 + ROW * i
        canvas.text(0, y + 6, stream.name)
        _one(canvas, stream, scale, y)
        if stream.name == worst:
            a, b = map(scale.x, silences[worst])
            canvas.line(a, y - 13, b, y - 13, "trouble", width=2.5)
            words = f"silent {measured(silences[worst][1] - silences[worst][0])}"
            left = b < 0.6 * WIDTH
            canvas.text(b + 6 if left else a - 6, y - 8, words, anchor="start" if left else "end")
    lasted = end - begin
    marks = {begin + share * lasted: f"{share * lasted:.2g} s" for share in (0.0, 0.5, 1.0)}
    canvas.axis(scale, 26 + ROW * len(rows), marks, width=1.5, inside=28)
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


def _silence(stream: Stream, scale: Scale) -> tuple[float, float]:
    """The longest gap that the picture shows some of, from and to, s."""
    gaps = [(a, b) for a, b in pairwise(stream.tokens) if b > scale.begin and a < scale.end]
    return max(gaps, key=lambda gap: gap[1] - gap[0], default=(scale.begin, scale.begin))


def _one(canvas: Canvas, stream: Stream, scale: Scale, y: float) -> None:
    """A row: its waiting for the first token, and its tokens."""
    first = stream.tokens[0] if stream.tokens else scale.end
    if first > scale.begin:
        canvas.line(scale.x(stream.sent), y, scale.x(first), y, "trouble", width=2)
    fill = "prefill" if stream.kind == "document" else "decode"
    for t in stream.tokens:
        if scale.begin <= t <= scale.end:
            canvas.rect(scale.x(t) - 1, y - 8, 2.2, 16, fill)


def _rows_table(rows: Sequence[Stream]) -> Table:
    said = []
    for stream in rows:
        longest = max(stream.gaps, default=None)
        first = "no first token" if stream.ttft is None else measured(stream.ttft)
        said.append((stream.name, first, "–" if longest is None else measured(longest)))
    return Table(header=("request", "first token after", "longest gap"), rows=said)
