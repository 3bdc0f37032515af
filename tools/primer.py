"""Fill the numbers and pictures of book/primer.md from the package: `python tools/primer.py [--check]`.

A generated stretch stands between `<!-- made: NAME -->` and `<!-- end -->`; the prose around it is written.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chunkprefill.plots.cells import filling_picture, mask_picture  # noqa: E402
from chunkprefill.plots.style import Canvas, Picture, Table  # noqa: E402

PAGE = ROOT / "book" / "primer.md"
WORDS = ("the", "cat", "sat")
KEYS = ((1.0, 0.0), (0.0, 2.0), (1.0, 1.0))
VALUES = ((4.0, 0.0), (0.0, 4.0), (2.0, 2.0))
QUERY = (0.0, 2.0)  # what "sat" asks: it wants to know who
LAST = len(WORDS) - 1


def look_back(
    query: tuple[float, ...], keys: tuple, values: tuple
) -> tuple[list[float], list[float], list[float]]:
    """Attention of one query: its scores, the shares softmax makes of them, the mix of the values."""
    scores = [sum(a * b for a, b in zip(query, key)) / math.sqrt(len(query)) for key in keys]
    powers = [math.exp(score) for score in scores]
    shares = [power / sum(powers) for power in powers]
    return scores, shares, [sum(s * v[i] for s, v in zip(shares, values)) for i in range(len(values[0]))]


def attention_table() -> str:
    """The worked example, one row a token looked at."""
    scores, shares, _ = look_back(QUERY, KEYS, VALUES)
    rows = [
        (word, f"{key[0]:g}, {key[1]:g}", f"{score:.2f}", f"{share:.0%}", f"{value[0]:g}, {value[1]:g}")
        for word, key, score, share, value in zip(WORDS, KEYS, scores, shares, VALUES)
    ]
    return Table(
        header=("token", "key", "score", "share", "value"), rows=rows, caption=f"{WORDS[LAST]} looks back"
    )._repr_html_()


def attention_sentence() -> str:
    """What comes out of it, in words."""
    _, shares, mixed = look_back(QUERY, KEYS, VALUES)
    best = max(range(len(WORDS)), key=shares.__getitem__)
    return (
        f"*{WORDS[LAST]}* asks with the query ({QUERY[0]:g}, {QUERY[1]:g}). "
        f"It fits the key of *{WORDS[best]}* best, "
        f"so {shares[best]:.0%} of what it collects is the value of *{WORDS[best]}*. "
        f"The mix is ({mixed[0]:.2f}, {mixed[1]:.2f})."
    )


def saved_picture() -> Picture:
    """Tokens that go through the model to write four: without a cache, and with one."""
    n_prompt, n_output, tall = 5, 4, 34
    canvas = Canvas(2 * (44 + tall * n_output) + 8)
    unit = 300 / (n_prompt + n_output)
    totals = []
    for block, (title, cached) in enumerate((("nothing kept", False), ("keys and values kept", True))):
        y0 = block * (44 + tall * n_output + 8)
        walks = [1 if cached and k else n_prompt + k for k in range(n_output)]
        totals.append(sum(walks))
        canvas.text(0, y0 + 20, f"{title}: {sum(walks)} tokens computed", bold=True)
        for k, n in enumerate(walks):
            y, held = y0 + 34 + k * tall, n_prompt + k - n
            canvas.text(92, y + 20, f"pass {k + 1}", anchor="end")
            if held:
                canvas.rect(104, y + 8, held * unit - 2, tall - 20, "ink", opacity=0.3, radius=2)
            colour = "prefill" if n > 1 else "decode"
            canvas.rect(104 + held * unit, y + 2, n * unit - 2, tall - 8, colour, radius=2)
            canvas.text(116 + (n + held) * unit, y + 20, str(n))
    return canvas.picture(
        alt="Four passes that write four tokens after a prompt of five. "
        f"With nothing kept, {totals[0]} tokens are computed: 5, 6, 7, 8. "
        f"With keys and values kept, {totals[1]} are: 5, 1, 1, 1.",
        caption="Each row is a forward pass. Coloured tokens go through the model; "
        "grey ones are read from the cache.",
        badge="drawing",
    )


PARTS = {
    "attention": attention_table,
    "sentence": attention_sentence,
    "mask": lambda: mask_picture(
        0, len(WORDS), words=WORDS, caption="Each row is a token that asks, each column one that may answer."
    )._repr_html_(),
    "saved": lambda: saved_picture()._repr_html_(),
    "filling": lambda: filling_picture(
        [5, 1, 1, 1],
        n_prompt=5,
        words=("p", "p", "p", "p", "p", "w", "w", "w"),
        caption="p: a token of the prompt. w: a token that the model wrote. Pass 1 prefills, the others decode.",
    )._repr_html_(),
}


def filled(page: str) -> str:
    """The page with every generated stretch made anew. Raises ValueError for a name that is not in PARTS."""

    def fill(found: re.Match[str]) -> str:
        if found[1] not in PARTS:
            raise ValueError(f"primer: no part is called {found[1]!r}; there are {', '.join(PARTS)}")
        return f"<!-- made: {found[1]} -->\n{PARTS[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- made: (\S+) -->.*?<!-- end -->", fill, page, flags=re.S)


def main(args: list[str]) -> int:
    """Write the page, or with --check say whether it is as the package makes it."""
    old = PAGE.read_text()
    new = filled(old)
    if "--check" in args and new != old:
        print("book/primer.md is stale: run python tools/primer.py", file=sys.stderr)
        return 1
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
