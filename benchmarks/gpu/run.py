"""`python -m benchmarks gpu`: all that is worth measuring on a GPU, by one command.

Sections run one after the other, each with a share of the time; one that fails or runs late is written down
with what it left out, and never stops the others. The file is written again after each section, so that a
kill loses little. Needs PyTorch, numpy and the tree; the rows of `transformers` are skipped, loudly, without
it. Figures are medians of interleaved samples, which are kept. On a GPU a pass is timed by events on it.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu import attention as gpu_attention
from benchmarks.gpu import equality as gpu_equality
from benchmarks.gpu import passes as gpu_passes
from benchmarks.gpu import serving as gpu_serving
from benchmarks.gpu import steps as gpu_steps
from benchmarks.gpu import targets as gpu_targets
from benchmarks.gpu import twin as gpu_twin
from benchmarks.gpu.lab import JsonRow, Lab, say
from benchmarks.runner import DTYPES, options, provenance_of, write
from chunkprefill.env import setup
from chunkprefill.recording import run_quietly

Section = Callable[[Lab], Iterator[JsonRow]]
#: What is measured, in this order, and the share of the time that each may take.
SECTIONS: dict[str, tuple[Section, float]] = {
    "ceilings": (gpu_passes.ceilings, 2),
    "equality": (gpu_equality.equality, 5),
    "prefilling": (gpu_passes.prefilling, 36),
    "mixed": (gpu_steps.mixed, 9),
    "decodes": (gpu_steps.decodes, 7),
    "attention": (gpu_attention.attention, 3),
    "twin_prefill": (gpu_twin.twin_prefill, 18),
    "twin_batching": (gpu_twin.twin_batching, 12),
    "piggyback": (gpu_steps.piggyback, 5),
    "tiles": (gpu_passes.tiles, 4),
    "memory": (gpu_passes.memory, 4),
    "scheduling": (gpu_serving.scheduling, 8),
    "policies": (gpu_serving.policies, 14),
}


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 whatever the figures are, and 1 if a section failed; both are in the file."""
    parser = options("gpu", __doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiny", action="store_true", help="the same sections in miniature, on the CPU")
    size.add_argument("--smoke", action="store_true", help="a point or two of each section: does it run?")
    parser.add_argument("--device", help="cpu or cuda (default: what the machine has)")
    parser.add_argument("--dtype", choices=DTYPES, help="default: what suits the device")
    parser.add_argument("--backend", help="of attention (default: the fastest that runs)")
    parser.add_argument("--budget-s", type=float, help="seconds in all (default: 500, for --smoke 170)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections (and the ceilings)")
    parser.add_argument(
        "--profile",
        choices=("none", "missed", "all"),
        default="missed",
        help="of which targets' steps to add the profile (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    here = setup(quiet=args.tiny)
    device = args.device or ("cpu" if args.tiny else here.device)
    default = here.dtype if device == here.device and here.dtype else torch.float32
    dtype = getattr(torch, args.dtype) if args.dtype else default
    budget = args.budget_s or (170.0 if args.smoke else 500.0)
    size_name = "tiny" if args.tiny else "smoke" if args.smoke else "full"
    lab = Lab(device, dtype, args.backend, size_name, args.seed)
    document: dict[str, Any] = {
        "bench": "gpu",
        "what": "medians of interleaved samples; a pass is timed by events on the device, weights are random",
        "provenance": provenance_of(args, device),
        **{"size": size_name, "dtype": str(dtype).removeprefix("torch."), "budget_s": budget},
        **{"backend": args.backend or "fastest", "setup": here.why, "models": lab.names()},
        **{"sections": [], "targets": [], "profiles": {}, "rows": []},
    }
    wanted = [name for name in SECTIONS if not args.only or name in args.only or name == "ceilings"]
    run(lab, wanted, budget, document, args.out)
    document["targets"] = gpu_targets.targets(document["rows"])
    for one in document["targets"]:
        say(f"{_word(one['met'])} {one['target']}: {one['value']} ({one['bound']})")
    if args.profile != "none":
        with _caught(document["sections"], "profiles"):
            every = args.profile == "all"
            document["profiles"] = gpu_targets.profiles(lab, document["targets"], every=every)
    write(document, args.out)
    if args.out and document["profiles"]:
        text = gpu_targets.as_text(document["profiles"])
        args.out.with_name(args.out.stem + "-profile.txt").write_text(text)
    return 1 if any(section.get("error") for section in document["sections"]) else 0


def run(lab: Lab, wanted: Sequence[str], budget_s: float, document: dict[str, Any], out: Path | None) -> None:
    """Every section in its share of what is left; the file is written after each."""
    end = perf_counter() + budget_s
    for i, name in enumerate(wanted):
        section, share = SECTIONS[name]
        began = perf_counter()
        rest = sum(SECTIONS[later][1] for later in wanted[i:])
        allowed = max(0.0, end - began) * share / rest
        lab.deadline, lab.cut = began + allowed, ""
        record: JsonRow = {"section": name, "allowed_s": allowed, "clocks": clocks(lab)}
        say(f"--- {name}: up to {allowed:.0f} s")
        document["sections"].append(record)
        n_rows, written = 0, began
        with _caught([record], name, grace_s=60 + 2 * allowed if lab.cuda else None):
            for row in section(lab):
                document["rows"].append(finite({"section": name} | row))
                n_rows += 1
                say(_line(row))
                if out is not None and perf_counter() - written > 20:
                    write(document, out)
                    written = perf_counter()
        lab.forget()
        record |= {"seconds": perf_counter() - began, "rows": n_rows, "left_out": lab.cut}
        if out is not None:
            write(document, out)


@contextmanager
def _caught(records: list[JsonRow], name: str, grace_s: float | None = None) -> Iterator[None]:
    """What goes wrong is said and written down; what hangs is left after a while, where there are alarms."""

    def late(signum: int, frame: object) -> None:
        raise TimeoutError(f"no end after {grace_s:.0f} s")

    old = signal.signal(signal.SIGALRM, late) if grace_s else None
    if grace_s:
        signal.alarm(int(grace_s))
    try:
        yield
    except ImportError as error:
        records[-1]["skipped"] = f"MISSING {error}"
        say(f"MISSING for {name}: {error}; its rows are skipped")
    except Exception as error:
        text = "".join(traceback.format_exception(error)[-3:])
        found = {
            "section": name,
            "error": f"{type(error).__name__}: {error}"[:500],
            "traceback": text[-1500:],
        }
        if records and records[-1].get("section") == name:
            records[-1] |= found
        else:
            records.append(found)
        say(f"ERROR in {name}: {found['error']}\n{text}")
    finally:
        if grace_s:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, old)


def clocks(lab: Lab) -> str:
    """What the card says of its clocks, heat and power; empty where it cannot be asked."""
    if not lab.cuda:
        return ""
    what = "clocks.sm,clocks.mem,temperature.gpu,power.draw"
    return run_quietly("nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader") or ""


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _line(row: JsonRow) -> str:
    """A row in brief."""
    cells = []
    for key, value in row.items():
        if isinstance(value, float):
            seconds = key == "s" or (key.endswith("_s") and not key.endswith("_per_s"))
            value = f"{value * 1e3:.3f} ms" if seconds else f"{value:.4g}"
        if isinstance(value, str | int) and value != "":
            cells.append(f"{key} {value}")
    return "  " + ", ".join(cells)


def _word(met: bool | None) -> str:
    return {True: "MET", False: "MISSED", None: "not measured"}[met]
