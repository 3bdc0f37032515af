"""Fill book/your-server.md from the recording and from `advise`: `python tools/your_server.py [--check]`.

A generated stretch stands between `<!-- made: NAME -->` and `<!-- end -->`; the prose around it is written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chunkprefill.servers.advise import Advice, Mix, advise  # noqa: E402
from chunkprefill_course.vllm_recording import vllm_picture, vllm_rows, vllm_verdicts  # noqa: E402

PAGE = ROOT / "book" / "your-server.md"
MODEL, DEVICE, DTYPE, TP = "llama-3.3-70b", "h100", "fp8", 2
LOAD = Mix(chats_per_s=4.0, chat=(300, 200), documents_per_s=0.1, document=(8000, 200))
PROMISES = ("tbt p99 50ms", "ttft chats p99 2s")
CHECKED = "We checked the probe on vLLM itself. Each row is a server whose settings the probe did not know:\n\n"  # above the table


@cache
def advice() -> Advice:
    """The worked question."""
    return advise(MODEL, DEVICE, LOAD, PROMISES, dtype=DTYPE, tp=TP)


def verdicts() -> str:
    """What the probe said of the recorded servers; where none is recorded, none is mentioned."""
    found = vllm_verdicts()
    return CHECKED + found._repr_html_() if found.rows else ""


def columns() -> str:
    """The three columns, as a picture."""
    if not vllm_rows():
        return ""
    return vllm_picture(
        caption="A document arrives while two chats decode, and a third chat follows: the same requests on vLLM, "
        "on our engine under the same rules, and in the simulator with costs calibrated on that machine."
    )._repr_html_()


def command() -> str:
    """The command that asks the question."""
    promises = " ".join(f"--promise '{p}'" for p in PROMISES)
    chat, document = (f"{p}+{o}" for p, o in (LOAD.chat, LOAD.document))
    return (
        f"```bash\npython -m chunkprefill advise {MODEL} {DEVICE} --dtype {DTYPE} --tp {TP} \\\n"
        f"    --chats-per-s {LOAD.chats_per_s:g} --chat {chat} "
        f"--documents-per-s {LOAD.documents_per_s:g} --document {document} \\\n    {promises}\n```"
    )


def table() -> str:
    """Its table."""
    return advice().table()._repr_html_()


def answer() -> str:
    """What it says beneath the table."""
    _, _, rest = str(advice()).partition("\n\n")
    return f"```text\n{rest}\n```"


PARTS: dict[str, Callable[[], str]] = {
    "verdicts": verdicts,
    "columns": columns,
    "command": command,
    "advice": table,
    "answer": answer,
}


def filled(text: str) -> str:
    """The page with its generated stretches made anew. KeyError for a stretch of an unknown name."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- made: {match[1]} -->\n{PARTS[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- made: (\w+) -->\n.*?<!-- end -->", made, text, flags=re.S)


def main(argv: list[str]) -> int:
    text = PAGE.read_text("utf-8")
    new = filled(text)
    if "--check" in argv:
        if new != text:
            print("stale, run `python tools/your_server.py`: book/your-server.md", file=sys.stderr)
        return int(new != text)
    PAGE.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
