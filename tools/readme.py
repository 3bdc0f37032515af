"""Write the README's measurements from benchmarks/results/. `--check` only compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- bench:prefill -->", "<!-- /bench:prefill -->"


def table(path: Path) -> str:
    """The bench's ratios as a Markdown table, with where they come from; or that there are none yet."""
    if not path.is_file():
        return "Not yet recorded.\n"
    document = json.loads(path.read_text())
    by = {(row["n_prompt"], row["chunk"]): row for row in document["rows"]}
    chunks = sorted({chunk for _, chunk in by}, key=lambda c: (c == "whole", c if c != "whole" else 0))
    lines = ["| prompt | " + " | ".join(str(c) for c in chunks) + " |", "|---:|" + "---:|" * len(chunks)]
    for n_prompt in sorted({n for n, _ in by}):
        cells = [f"{r:.2f}" if (r := by[n_prompt, c].get("ratio")) else "–" for c in chunks]
        lines.append(f"| {n_prompt:,} | " + " | ".join(cells) + " |")
    p = document["provenance"]
    lines += [
        "",
        f"*{p['device']}, {p['machine']}, torch {p['torch']}, {p['threads']} threads, "
        f"transformers {p['versions']['transformers']}, {p['date']}, commit {p['commit'][:8]}"
        f"{' with uncommitted changes' if p['dirty'] else ''}, seed {p['seed']}.*",
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    readme = ROOT / "README.md"
    text = readme.read_text()
    fresh = re.sub(
        f"{BEGIN}\n.*?{END}",
        lambda _: f"{BEGIN}\n{table(ROOT / 'benchmarks/results/prefill-cpu.json')}{END}",
        text,
        flags=re.DOTALL,
    )
    if "--check" in argv:
        if fresh != text:
            print("README.md is stale: run `make pages`", file=sys.stderr)
        return int(fresh != text)
    readme.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
