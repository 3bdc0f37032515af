"""Write the README's picture (simulated) and its measurements (recorded). `--check` only compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import chunkprefill as cp  # noqa: E402

PICTURE = ROOT / "book/_static/readme.svg"
BEGIN, END = "<!-- bench:prefill -->", "<!-- /bench:prefill -->"


def table(path: Path) -> str:
    """The bench's ratios as a Markdown table, with where they come from; or that there are none yet."""
    if not path.is_file():
        return "Not yet recorded.\n"
    document = json.loads(path.read_text())
    by = {(c["prompt"], c["chunk"] if c["chunk"] < c["prompt"] else "whole"): c for c in document["cells"]}
    chunks = sorted({chunk for _, chunk in by}, key=lambda chunk: (chunk == "whole", str(chunk).zfill(9)))
    lines = ["| prompt | " + " | ".join(map(str, chunks)) + " |", "|---:|" + "---:|" * len(chunks)]
    for n_prompt in sorted({n for n, _ in by}):
        ratios = [by.get((n_prompt, chunk), {}).get("ratio") for chunk in chunks]
        lines.append(f"| {n_prompt:,} | " + " | ".join(f"{r:.2f}" if r else "–" for r in ratios) + " |")
    p = document["provenance"]
    lines += [
        "",
        f"*{p['device']}, {p['machine']}, torch {p['torch']}, {p['threads']} threads, "
        f"transformers {p['versions']['transformers']}, {p['date']}, commit {p['commit'][:8]}"
        f"{' with uncommitted changes' if p['dirty'] else ''}, seed {p['seed']}.*",
    ]
    return "\n".join(lines) + "\n"


def drawing() -> str:
    """Two chats, a document, two more chats, under three policies: the course in one picture."""
    chats = [("chat 1", 0.0), ("chat 2", 0.016), ("chat 3", 0.16), ("chat 4", 0.22)]
    requests = [cp.Request(rid, arrival, 200, 60) for rid, arrival in chats]
    requests.insert(2, cp.Request("document", 0.1, 8192, 24))
    policies = {
        "Prefilling first: everybody waits": cp.PrefillFirst(8192),
        "In chunks, in order: newcomers wait": cp.ChunkedPrefill(512),
        "In chunks, shortest first: they pass": cp.ChunkedPrefill(512, order="shortest"),
    }
    traces = {title: cp.simulate(requests, policy) for title, policy in policies.items()}
    svg = cp.timeline_picture(traces, caption="the README's", mark=("chat 1",), until=0.5).image()
    # A file of its own has no page whose ink it could follow: it asks the reader's system instead.
    ink = "<style>svg{color:#222;font-family:system-ui,sans-serif}"
    ink += "@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>"
    return re.sub(r"(<svg[^>]*>)", rf"\1{ink}", svg, count=1) + "\n"


def main(argv: list[str]) -> int:
    readme = ROOT / "README.md"
    text = readme.read_text()
    fresh = re.sub(
        f"{BEGIN}\n.*?{END}",
        lambda _: f"{BEGIN}\n{table(ROOT / 'benchmarks/results/prefill-cpu.json')}{END}",
        text,
        flags=re.DOTALL,
    )
    svg = drawing()
    if "--check" in argv:
        stale = fresh != text or not PICTURE.is_file() or PICTURE.read_text() != svg
        if stale:
            print("README.md or its picture is stale: run `make pages`", file=sys.stderr)
        return int(stale)
    readme.write_text(fresh)
    PICTURE.write_text(svg)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
