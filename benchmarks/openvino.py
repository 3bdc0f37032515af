"""The same document among chats on a second engine: OpenVINO GenAI, continuous batching, from our GGUF.

It lives in an environment of its own, which these two commands make, and then it takes a few minutes:

    python -m venv .venv-openvino && .venv-openvino/bin/pip install openvino-genai
    python -m benchmarks openvino

Each run serves the requests once unseen before it is timed. OpenVINO reads the 4-bit weights
that `load_model("smollm2-135m")` reads, and is stepped in process, so that each step's end is seen. Its
products are 4-bit, ours are not: texts may differ, and waits are what is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.drive import Answer, numbers
from benchmarks.runner import ROOT, options, positive, provenance_of, write
from chunkprefill.model.smollm2 import gguf_path
from chunkprefill.servers.client import clean
from chunkprefill.servers.stream import json_of

WORKER = Path(__file__).with_name("openvino_worker.py")
LIMIT_S = 300.0  # of one run
#: name -> its SchedulerConfig's fields.
SETTINGS: dict[str, dict[str, Any]] = {
    "budget 256": {"max_num_batched_tokens": 256, "dynamic_split_fuse": True},
    "budget 4096": {"max_num_batched_tokens": 4096, "dynamic_split_fuse": True},
    "split and fuse off, 4096": {"max_num_batched_tokens": 4096, "dynamic_split_fuse": False},
}
NAMES = {"chats": ("chat 1", "chat 2"), "document": ("document",), "late": ("late",)}


def openvino_python(root: Path) -> Path | None:
    """The Python of `.venv-openvino`, or of the folder that `CHUNKPREFILL_OPENVINO` names; None without one."""
    home = Path(os.environ.get("CHUNKPREFILL_OPENVINO") or root / ".venv-openvino")
    there = any(home.glob("lib/python3*/site-packages/openvino_genai"))
    return home / "bin" / "python" if there else None


def requests(seed: int, document: int, answer: int) -> list[dict[str, Any]]:
    """What is sent: each after so many of the first chat's tokens, so that a slow machine sees the same."""
    draw = random.Random(f"openvino {seed}")

    def one(name: str, n: int, n_output: int, after: int) -> dict[str, Any]:
        ids = [draw.randrange(100, 1000) for _ in range(n)]
        return {"name": name, "ids": ids, "n_output": n_output, "after_steps": after}

    chats = [one(f"chat {i}", 48, answer, 0) for i in (1, 2)]
    return [*chats, one("document", document, 4, 24), one("late", 64, 4, 26)]


def run(python: Path, settings: dict[str, Any], sent: list[dict[str, Any]]) -> dict[str, Any]:
    """One run in the other environment. RuntimeError with its own words where it fails."""
    job = json.dumps({"model": str(gguf_path()), "settings": settings, "requests": sent})
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(python), "-P", str(WORKER)],
        input=job,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"OpenVINO ended with {done.returncode}: {done.stderr[-600:]}")
    lines = done.stdout.splitlines()
    found = json_of(lines[-1]) if lines else None
    if not isinstance(found, dict):
        raise RuntimeError(f"OpenVINO ended without an answer: {(lines or [''])[-1][-200:]!r}")
    served = {one["name"]: len(one["tokens"]) for one in found["requests"]}
    for one in sent:
        if served.get(one["name"]) != one["n_output"]:
            n = served.get(one["name"], 0)
            raise RuntimeError(f"{one['name']}: {n} tokens came, {one['n_output']} were asked for")
    return found


def main(argv: list[str] | None = None) -> int:
    parser = options("openvino", __doc__)
    parser.add_argument("--document", type=positive, default=1500, help="tokens (default: %(default)s)")
    parser.add_argument(
        "--answer", type=positive, default=80, help="tokens of a chat's (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    python = openvino_python(ROOT)
    if python is None:
        print("OpenVINO was not run: no .venv-openvino here (pip install openvino-genai)", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the engine would outlive the bench
    try:
        rows, version = record(python, args)
    except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
        print(f"OpenVINO was not recorded: {clean(error, 600)}", file=sys.stderr)
        return 1
    document = {
        "bench": "openvino",
        "what": "a document among chats on OpenVINO GenAI's continuous batching; s from the start of a run",
        "model": "SmolLM2-135M, the 4-bit GGUF file",
        "document": args.document,
        "openvino_genai": version,
        "rows": rows,
        "provenance": provenance_of(args),
    }
    write(document, args.out)
    return 0


def record(python: Path, args: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """A row for each of SETTINGS, and which OpenVINO it was."""
    rows, version = [], ""
    for name, settings in SETTINGS.items():
        found = run(python, settings, requests(args.seed, args.document, args.answer))
        version = found["version"]
        answers = {each["name"]: Answer(each["sent"], tuple(each["tokens"])) for each in found["requests"]}
        seconds = numbers(answers, NAMES)
        rows.append({"settings": name, "flags": settings, "s": seconds, "tokens_s": found["requests"]})
        print(f"{name}: " + ", ".join(f"{k} {v:.3f} s" for k, v in seconds.items() if v), file=sys.stderr)
    return rows, version
