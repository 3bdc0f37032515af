"""The picture of the first page, from the simulator: `python tools/front.py [--check]`.

Fills the stretches of book/intro.md that stand between `<!-- made: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chunkprefill.plots.style import Canvas, Picture, Table  # noqa: E402
from chunkprefill.scheduling.core import Request  # noqa: E402
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst  # noqa: E402
from chunkprefill.simulation.published import published  # noqa: E402
from chunkprefill.simulation.simulate import simulate  # noqa: E402

PAGE = ROOT / "book/intro.md"
CHAT, DOCUMENT = 0, 1
N_DOCUMENT, BUDGET = 8192, 512  # tokens
ARRIVES = 0.1  # s
REQUESTS = (
    Request(CHAT, 0.0, 400, 80),
    Request(DOCUMENT, ARRIVES, N_DOCUMENT, 12),
)
LEFT, RIGHT = 104, 496  # the plot's edges, in user units; left of it stand the names


@dataclass(frozen=True)
class SimulatedRun:
    """One simulated run as the picture needs it; times in s."""

    title: str
    boxes: tuple[tuple[int, float, float, bool], ...]  # rid, start, end, whether it is a decoding step
    tokens: dict[int, list[float]]  # rid -> when each of its tokens was there

    @property
    def gap(self) -> tuple[float, float]:
        """The chat's longest gap between two tokens: from, to."""
        times = self.tokens[CHAT]
        return max(pairwise(times), key=lambda gap: gap[1] - gap[0])

    @property
    def wait(self) -> float:
        """The document's time to its first token."""
        return self.tokens[DOCUMENT][0] - ARRIVES


@cache
def runs() -> tuple[SimulatedRun, SimulatedRun]:
    """The same two requests under both policies, priced by kernels that were timed: Llama-3.1-8B on an H100."""
    both = []
    for title, policy in (
        ("In one piece", PrefillFirst(N_DOCUMENT)),
        (f"In chunks, {BUDGET} tokens a step", ChunkedPrefill(BUDGET)),
    ):
        trace = simulate(list(REQUESTS), policy, published("h100"))
        prompts = {CHAT: REQUESTS[CHAT].n_prompt, DOCUMENT: N_DOCUMENT}
        boxes: list[tuple[int, float, float, bool]] = []
        tokens: dict[int, list[float]] = {CHAT: [], DOCUMENT: []}
        for step in trace.steps:
            for chunk in step.batch.chunks:
                rid = int(chunk.rid)
                boxes.append((rid, step.start, step.end, chunk.start >= prompts[rid]))
                if chunk.emits:
                    tokens[rid].append(step.end)
        both.append(SimulatedRun(title, tuple(boxes), tokens))
    return both[0], both[1]


def ms(seconds: float) -> str:
    """Milliseconds, whole."""
    return f"{seconds * 1e3:.0f} ms"


def timeline() -> Picture:
    """Both runs on one scale: who is computed when, and the chat's longest gap marked."""
    first, last = 0.08, max(run.tokens[DOCUMENT][0] for run in runs()) + 0.03
    scale = (RIGHT - LEFT) / (last - first)
    canvas = Canvas(368)
    for k, run in enumerate(runs()):
        top = 164 * k
        canvas.text(0, top + 20, run.title, bold=True)
        canvas.text(LEFT - 12, top + 74, "chat", anchor="end")
        canvas.text(LEFT - 12, top + 112, "document", anchor="end")
        for rid, start, end, decodes in run.boxes:
            a, b = max(start, first), min(end, last)
            if a < b:
                y, tall = top + (58 if rid == CHAT else 94), 24
                fill = "decode" if decodes else "prefill"
                canvas.rect(
                    LEFT + (a - first) * scale,
                    y + 4 * decodes,
                    max((b - a) * scale - 1, 0.5),
                    tall - 8 * decodes,
                    fill,
                )
        a, b = (LEFT + (t - first) * scale for t in run.gap)
        y = top + 48
        for x in (a, b):
            canvas.line(x, y - 7, x, y + 7, "trouble", width=3)
        canvas.line(a, y, b, y, "trouble", width=3)
        words = f"gap {ms(run.gap[1] - run.gap[0])}"
        if b - a > 200:
            canvas.text((a + b) / 2, y - 8, words, anchor="middle")
        else:
            canvas.text(a - 10, y + 6, words, anchor="end")
    whole = runs()[0]
    middle = sum(next((s, e) for r, s, e, d in whole.boxes if r == DOCUMENT and not d)) / 2
    canvas.text(LEFT + (middle - first) * scale, 112, f"{N_DOCUMENT:,} tokens", anchor="middle", fill="#fff")
    bottom = 300
    canvas.line(LEFT, bottom, RIGHT, bottom)
    for t in range(100, round(last * 1e3), 50):
        x = LEFT + (t / 1e3 - first) * scale
        canvas.line(x, bottom, x, bottom + 6)
        canvas.text(x, bottom + 26, str(t), anchor="middle")
    canvas.text((LEFT + RIGHT) / 2, bottom + 54, "time, ms", anchor="middle")
    one, cut = runs()
    return canvas.picture(
        alt=f"A chat is being answered when a document of {N_DOCUMENT:,} tokens arrives at {ms(ARRIVES)}. "
        f"In one piece, its prefilling keeps the chat silent for {ms(one.gap[1] - one.gap[0])}. "
        f"In chunks, with {BUDGET} tokens a step, the chat goes on and its longest gap is "
        f"{ms(cut.gap[1] - cut.gap[0])}.",
        caption="Each box is a step that the request took part in, as wide as the time it took. "
        "Tall and blue: the prompt is read. Low and orange: a token is written.",
        badge="simulated",
        source="Llama-3.1-8B on one H100, from published kernel timings",
        table=Table(
            header=("measure", one.title, cut.title.partition(",")[0]),
            rows=[
                ("longest gap of the chat", *(ms(r.gap[1] - r.gap[0]) for r in runs())),
                ("document's first token after", *(ms(r.wait) for r in runs())),
            ],
        ),
    )


def sentence() -> str:
    """What the picture says, with its price."""
    one, cut = runs()
    found = recorded_pass()
    (priced,) = (end - start for rid, start, end, decodes in one.boxes if rid == DOCUMENT and not decodes)
    more = found["s"] / priced - 1
    if not 0 < more < 0.25:
        raise ValueError(
            f"intro: the recorded pass took {more:+.0%} against its price; the sentence says a little more"
        )
    return (
        f"Read in one piece, the document keeps the chat waiting for "
        f"**{ms(one.gap[1] - one.gap[0])}**. Cut into chunks, it keeps it waiting for "
        f"**{ms(cut.gap[1] - cut.gap[0])}** at most. The document pays: its own first token "
        f"comes after {ms(cut.wait)} instead of {ms(one.wait)}. "
        f"These times are priced, from published timings of an H100's kernels {{cite:p}}`vidur,aiconfigurator`, and a "
        f"machine takes longer. On [the H100 that was recorded](measurements.md) the course's own engine took "
        f"{ms(found['s'])} to read a document of that length in one pass, {more:.0%} more than the price of that pass. (That "
        f"is the middle of {found['runs']} runs, {ms(found['s_least'])} to {ms(found['s_most'])}.)"
    )


def recorded_pass() -> dict[str, Any]:
    """The recorded pass over a prompt as long as the document, in one piece: `s`, and the range of its `runs`."""
    rows = json.loads((ROOT / "chunkprefill_course/data/recorded.json").read_text("utf8"))["rows"]
    (found,) = (
        row
        for row in rows
        if row.get("section") == "prefilling"
        and row.get("model") == "Llama-3-8B"
        and row.get("prompt") == row.get("chunk") == N_DOCUMENT
    )
    return found


def filled(page: str) -> str:
    """The page with every generated stretch made anew. Raises ValueError for a name that nothing makes."""
    parts = {"timeline": lambda: timeline()._repr_html_(), "sentence": sentence}

    def fill(found: re.Match[str]) -> str:
        if found[1] not in parts:
            raise ValueError(f"intro: no part is called {found[1]!r}; there are {', '.join(parts)}")
        return f"<!-- made: {found[1]} -->\n{parts[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- made: (\S+) -->.*?<!-- end -->", fill, page, flags=re.S)


def main(args: list[str]) -> int:
    """Write the page, or with --check say whether it is as the simulator makes it."""
    old = PAGE.read_text("utf8")
    new = filled(old)
    if "--check" in args:
        if new != old:
            print("book/intro.md is stale: run `make pages`", file=sys.stderr)
        return int(new != old)
    PAGE.write_text(new, encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
