"""The commands `probe` and `advise`: their options, what they print, and with which status they end."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from chunkprefill.metrics.tally import Tally
from chunkprefill.model.config import Config
from chunkprefill.model.families import read_config
from chunkprefill.model.mixtures import priced_of
from chunkprefill.plots.style import Table, plain
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.trace import Trace
from chunkprefill.servers.advise import BUDGETS, Advice, Mix, advise, predict
from chunkprefill.servers.client import Address, ProbeError, clean
from chunkprefill.servers.probe import ProbePlan, probe, refuse_open_key

MOST_REQUESTS = 4000  # of a trace: its first
PLANNED = ("chats", "late", "prompt", "document", "answer", "rounds", "seconds")  # options that a plan has


# --- probe ----------------------------------------------------------------------------------------------


def run_probe(args: Any) -> int:
    """`python -m chunkprefill probe`: 0 with a verdict, 1 for unknown, 2 where nothing could be probed."""
    try:
        plan = ProbePlan(**{name: getattr(args, name) for name in PLANNED})
        address = Address.of(args.url)
        key = key_of(args.key_env)
        refuse_open_key(address, key)
        if args.dry_run:
            print(plan.text(address.shown, args.model))
            return 0
        for path in filter(None, (args.out, args.html)):
            _try_to_write(path)
        found = probe(args.url, args.model, plan, key=key)
        print(found)
        if args.out:
            found.save(args.out)
            print(f"wrote {args.out}", file=sys.stderr)
        if args.html:
            with open(args.html, "w", encoding="utf-8") as file:
                file.write(found.page())
            print(f"wrote {args.html}", file=sys.stderr)
    except (ProbeError, ValueError, OSError) as error:
        kind = f" ({error.kind})" if isinstance(error, ProbeError) else ""
        print(f"probe{kind}: {error}", file=sys.stderr)
        return 2
    return 0 if found.verdict.known else 1


def _try_to_write(path: str) -> None:
    """OSError now, and not after a probe, for a path that cannot be written; leaves nothing behind."""
    new = not os.path.exists(path)
    with open(path, "a", encoding="utf-8"):
        pass
    if new:
        os.unlink(path)


def key_of(name: str | None) -> str | None:
    """The key, out of the environment: a command line is seen by every process of the machine."""
    if not name:
        return None
    if not (key := os.environ.get(name)):
        raise ProbeError("unauthorized", f"no key in the environment variable {clean(name)}")
    return key


def probe_options(parser: Any) -> None:
    """The options of `probe`."""
    usual = ProbePlan()
    parser.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8000")
    parser.add_argument(
        "--model", help="the name that requests give (default: the first listed one that writes text)"
    )
    parser.add_argument("--document", type=int, help="tokens of the document (default: as the model allows)")
    for name, words in (
        ("chats", "chats that decode when the document comes"),
        ("late", "chats that follow it"),
        ("prompt", "tokens of a chat's prompt"),
        ("answer", "tokens of a chat's answer, at most"),
        ("rounds", "rounds with the document"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=getattr(usual, name), help=f"{words} (default: %(default)s)"
        )
    parser.add_argument(
        "--seconds", type=float, default=usual.seconds, help="for the whole probe (default: %(default)g)"
    )
    parser.add_argument("--key-env", metavar="NAME", help="environment variable that holds the server's key")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    parser.add_argument("--out", metavar="FILE", help="write the record here, as JSON")
    parser.add_argument("--html", metavar="FILE", help="write verdict, picture and table here, as a page")


# --- advise ---------------------------------------------------------------------------------------------


def run_advise(args: Any) -> int:
    """`python -m chunkprefill advise`: 0 with a budget, 1 where none keeps the promises, 2 for bad input."""
    try:
        load: Mix | list[Request]
        if args.trace:
            load = read_load(args.trace)
            if len(load) > MOST_REQUESTS:
                cut = f"of {len(load):,} requests in {clean(args.trace)} the first {MOST_REQUESTS:,} are simulated"
                print(cut, file=sys.stderr)
                load = load[:MOST_REQUESTS]
        else:
            load = Mix(
                args.chats_per_s, pair(args.chat), args.documents_per_s, pair(args.document), args.requests
            )
        promises = args.promise or ["tbt p99 50ms", "ttft chats p99 2s"]
        print("simulating", file=sys.stderr)
        found = advise(
            read_model(args.model),
            args.device,
            load,
            promises,
            dtype=args.dtype,
            kv_dtype=args.kv_dtype,
            tp=args.tp,
            budgets=args.budgets or BUDGETS,
        )
        print(found)
        if args.measure:
            key = key_of(args.key_env)
            print(against(found, probe(args.measure, args.served_model, key=key)))
    except (ProbeError, ValueError, TypeError, OSError) as error:
        print(f"advise: {error}", file=sys.stderr)
        return 2
    return 0 if found.best is not None else 1


def read_load(path: str) -> list[Request]:
    """Requests of a trace file, by arrival: ours (JSON), Azure's or Mooncake's.

    ValueError naming the file where it is none of these.
    """
    from chunkprefill.simulation.workloads import read_azure, read_mooncake  # numpy, for this alone

    where = Path(path)
    if where.exists() and not where.is_file():
        raise ValueError(f"{clean(path)}: no regular file, and a trace is looked at twice")
    try:
        head = where.open("rb").read(400).decode("utf-8", "replace")
    except OSError as error:
        raise ValueError(f"{clean(path)}: {error.strerror}") from None
    if '"chunkprefill-trace"' in head:
        requests = list(Trace.load(where).requests)
    elif "TIMESTAMP" in head:
        requests = read_azure(where)
    else:
        requests = read_mooncake(where)
    return sorted(requests, key=lambda r: r.arrival)


def read_model(text: str) -> Config | str:
    """A name of a shape, or the `config.json` at a path."""
    if not text.endswith(".json") and not ("/" in text and Path(text).exists()):
        return text
    path = Path(text)
    return read_config(path / "config.json" if path.is_dir() else path, priced_of)


def pair(text: str) -> tuple[int, int]:
    """`300+200`: prompt and output tokens."""
    found = re.fullmatch(r"\s*([\d_,]+)\s*\+\s*([\d_,]+)\s*", text)
    if not found:
        raise ValueError(f"{clean(text)!r} is not PROMPT+OUTPUT tokens, such as 300+200")
    prompt, output = (int(x.replace(",", "").replace("_", "")) for x in found.groups())
    return prompt, output


def against(advice: Advice, measured: Any) -> str:
    """The advice beside a probe: the same requests as the probe sent, predicted at the step that it saw.

    What a chat waits is predicted at the budget that the probe's verdict tells, and set beside what was measured.
    """
    verdict = measured.verdict
    if not verdict.known or verdict.step is None:
        return f"held against the probe: nothing, for its verdict is {verdict.name}: {verdict.evidence[0]}"
    name = measured.rounds[-1]
    streams = [s for kind in ("chat", "document", "late") for s in measured.of(name, kind) if s.tokens]
    begin = min(s.sent for s in streams)
    requests = [Request(s.name, s.sent - begin, s.n_prompt, max(1, len(s.tokens))) for s in streams]
    budget = max(1, round(verdict.step.likely))
    trace = predict(requests, advice.place, budget)
    tally = Tally(trace)
    rids = [r.rid for r in trace.requests]
    firsts, gaps = dict(zip(rids, tally.ttft)), dict(zip(rids, tally.gaps))
    document, chats = measured.of(name, "document")[0], measured.of(name, "chat")
    longest = max((gap for s in chats for gap in s.gaps), default=None)
    held_up = max((gap for s in chats for gap in gaps.get(s.name, ())), default=None)
    rows = [
        ("document's first token", plain(document.ttft), plain(firsts.get(document.name))),
        ("largest gap of a chat", plain(longest), plain(held_up)),
    ]
    caption = f"at about {budget:,} tokens a step"
    table = Table(header=("", "measured", "predicted"), rows=rows, caption=caption)
    said = str(verdict.step)
    if advice.best:
        said = f"the server runs about {budget:,} tokens a step; the advice is {advice.best:,}"
    return f"held against the probe: {said}\n{table}"


def advise_options(parser: Any) -> None:
    """The options of `advise`."""
    usual = Mix()
    parser.add_argument("model", help="a name such as llama-3.3-70b, or the path of a config.json")
    parser.add_argument("device", help="such as h100, a100, rtx4090")
    parser.add_argument("--dtype", default="bf16", help="of the weights (default: %(default)s)")
    parser.add_argument("--kv-dtype", help="of the cache (default: as activations)")
    parser.add_argument("--tp", type=int, default=1, help="devices that share each layer")
    parser.add_argument(
        "--trace", metavar="FILE", help="requests: a trace of ours, of Azure's, of Mooncake's"
    )
    parser.add_argument("--chats-per-s", type=float, default=usual.chats_per_s, metavar="N")
    parser.add_argument("--chat", default="300+200", metavar="P+O", help="tokens of prompt and output")
    parser.add_argument("--documents-per-s", type=float, default=usual.documents_per_s, metavar="N")
    parser.add_argument("--document", default="8000+200", metavar="P+O")
    parser.add_argument(
        "--requests", type=int, default=usual.n, help="that are simulated (default: %(default)s)"
    )
    parser.add_argument(
        "--promise",
        action="append",
        metavar="WORDS",
        help="'tbt p99 50ms', 'ttft chats p90 1s'; may be repeated",
    )
    parser.add_argument("--budgets", type=int, nargs="+", metavar="N", help="tokens a step, to be tried")
    parser.add_argument("--measure", metavar="URL", help="hold the advice against a probe of this server")
    parser.add_argument(
        "--model",
        dest="served_model",
        metavar="NAME",
        help="with --measure: the name that requests give (default: the first listed one that writes text)",
    )
    parser.add_argument(
        "--key-env", metavar="NAME", help="with --measure: environment variable that holds the server's key"
    )
