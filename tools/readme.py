"""Write the README's picture (simulated) and its measurements (recorded). `--check` only compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]  # so that tests may import this file as tools.readme

from measured_engines import engine_ratios  # noqa: E402

import chunkprefill as cp  # noqa: E402
from chunkprefill.scheduling.loop import Policy  # noqa: E402

PICTURE = ROOT / "book/_static/readme.svg"


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
    return "\n".join([*lines, "", provenance_line(document)]) + "\n"


def engines_table(*paths: Path) -> str:
    """The ratios beside transformers and vLLM, a row for each piece of work; or that there are none yet."""
    documents = [json.loads(path.read_text()) for path in paths if path.is_file()]
    if not documents:
        return "Not yet recorded.\n"
    header, rows = engine_ratios(documents)
    lines = ["| " + " | ".join(header) + " |", "|:---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    for document in documents:
        dtypes = " and ".join(dict.fromkeys(row["dtype"] for row in document["rows"]))
        clock = "; processor time, on a machine that others used" if document["clock"] == "cpu" else ""
        vllm = document["engines"].get("vllm", {}).get("vllm")
        lines += ["", provenance_line(document, f"{clock}, vLLM {vllm}" if vllm else clock, dtypes)]
    return "\n".join(lines) + "\n"


def provenance_line(document: dict[str, Any], more: str = "", what: str = "") -> str:
    """Whose numbers these are, in a line of Markdown; `what` they are, where there are several."""
    p = document["provenance"]
    changed = " with uncommitted changes" if p["dirty"] else ""
    threads = f"{p['threads']} thread{'' if p['threads'] == 1 else 's'}"
    return (
        f"*{what}{': ' if what else ''}{p['device']}, {p['machine']}, torch {p['torch']}, {threads}, "
        f"transformers {p['versions']['transformers']}{more}, {p['date']}, "
        f"commit {p['commit'][:8]}{changed}, seed {p['seed']}.*"
    )


def filled_readme(text: str) -> str:
    """The README with each block `<!-- bench:NAME -->` written anew from what was recorded."""
    results = ROOT / "benchmarks/results"
    blocks = {
        "prefill": table(results / "prefill-cpu.json"),
        "engines": engines_table(*sorted(results.glob("engines-*.json"), reverse=True)),
    }
    for name, block in blocks.items():
        begin, end = f"<!-- bench:{name} -->\n", f"<!-- /bench:{name} -->"
        before, rest = text.split(begin)
        text = before + begin + block + end + rest.split(end)[1]
    return text


def drawing() -> str:
    """Two chats, a document, two more chats, under three policies: the course in one picture."""
    chats = [("chat 1", 0.0), ("chat 2", 0.016), ("chat 3", 0.16), ("chat 4", 0.22)]
    requests = [cp.Request(rid, arrival, 200, 60) for rid, arrival in chats]
    requests.insert(2, cp.Request("document", 0.1, 8192, 24))
    policies: dict[str, Policy] = {
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
    fresh = filled_readme(text)
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
