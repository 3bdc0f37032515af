"""The bench of scheduling's cost and the profiler's trace: run small; the recording held to targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from benchmarks import __main__ as bench
from benchmarks import overhead
from chunkprefill.plots.profile import MOST_BYTES, between_passes, profile_spans
from tests.needs import ROOT

torch = pytest.importorskip("torch")
from benchmarks import overhead_runs as runs  # noqa: E402
from chunkprefill import profiling as profile  # noqa: E402
from chunkprefill_course.evidence.designs import SKIP, Design, grid, medians, timed  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "overhead.json"
    assert bench.main(["overhead", "--tiny", "--threads", "1", "--out", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def recorded():
    return json.loads((RESULTS / "overhead-cpu.json").read_text())


def check_shape(document):
    assert document["bench"] == "overhead" and document["parts"] == list(cp.PARTS)
    assert document["provenance"]["commit"] and "date" in document["provenance"]
    assert document["apart"]["columns"] == list(runs.COLUMNS)
    for row in document["apart"]["steps"]:
        assert len(row) == len(runs.COLUMNS) and min(row) >= 0
    assert {row["overlap"] for row in document["overlap"]["rows"]} == {False, True}
    for row in document["by_chunk"]["rows"]:
        n = document["by_chunk"]["n_prompt"]
        assert row["visits"] >= -(-n // row["chunk"]) and 0 < row["share"] < 1
        assert row["scheduling_us"] == pytest.approx(sum(row["prompt_us"][p] for p in cp.PARTS), abs=1)


def test_it_runs_small(tiny):
    check_shape(tiny)
    assert (
        tiny["tiny"]
        and len(tiny["recording"]["samples_on_s"])
        == len(tiny["recording"]["samples_off_s"])
        == runs.TINY.pairs
    )


def test_what_is_committed_came_from_it_in_full(recorded):
    check_shape(recorded)
    assert not recorded["tiny"] and set(recorded["models"]) >= {"SmolLM2-135M"}
    kinds = {tuple(row[:3]) for row in recorded["apart"]["steps"]}
    assert kinds == {(d.n_decodes, d.n_chunks, d.n_tokens) for d in (*runs.FULL.fitted, *runs.FULL.held_out)}
    assert recorded["targets"] == overhead.TARGETS


def test_parts_add_up_to_the_step_within_five_percent(recorded):
    """Summed here from the raw rows, once more."""
    at = {name: i for i, name in enumerate(recorded["apart"]["columns"])}
    off = []
    for row in recorded["apart"]["steps"]:
        known = sum(row[at[name]] for name in (*cp.PARTS, "check", "wait"))
        off.append(abs(known / row[at["wall"]] - 1))
    assert median(off) <= 0.05 and sorted(off)[int(0.95 * len(off))] <= 0.05
    assert recorded["verdict"]["uncovered"] <= 0.05


def test_recording_costs_under_two_percent(recorded):
    on, off = (recorded["recording"][f"samples_{name}_s"] for name in ("on", "off"))
    assert len(on) == len(off) >= 20
    assert median(on) / median(off) - 1 < 0.02


def test_twice_the_batch_is_foretold_within_a_fifth(recorded):
    fit = recorded["apart"]["fits"]["all parts"]
    errors = [abs(want / got - 1) for *_, got, want in fit["held_out_us"]]
    assert median(errors) == pytest.approx(fit["held_out_median_error"], abs=1e-3)
    assert median(errors) <= 0.20
    fitted = list(runs.FULL.fitted)
    for what in (lambda d: d.n_decodes + d.n_chunks, lambda d: d.n_tokens):
        assert max(map(what, runs.FULL.held_out)) >= 1.9 * max(map(what, fitted)), "twice, or nearly"


def test_the_verdict_is_from_the_rows():
    row = [4, 1, 20] + [10.0] * len(cp.PARTS) + [5.0, 35.0, 35.0, 0.0]
    document = {
        "apart": {
            "steps": [[*row, 100.0], [*row, 200.0], [*row, 101.0]],
            "fits": {"all parts": {"held_out_median_error": 0.3}},
        },
        "recording": {"share": 0.01},
    }
    found = overhead.verdict(document)
    assert found["uncovered"] == pytest.approx(1 - 100 / 101) and found["steps_within_5%"] == pytest.approx(
        2 / 3
    )
    assert found["met"] == {"uncovered": True, "recording": True, "held_out_median_error": False}


# --- designs ------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.integers(0, 5), st.integers(2, 40), st.integers(1, 4))
def test_a_design_is_what_its_policy_decides(d, k, c, n_steps):
    """Deciding is timed on states in which the design's batches are the decision."""
    if not d + k:
        return
    design = Design(d, k, c)
    wanted = [step.batch for step in design.trace(n_steps).steps[SKIP:]]
    assert len(wanted) == n_steps
    for batch in wanted:
        sums = batch.totals()
        assert (sums.n_decodes, len(sums.chunks), sums.n_tokens) == (d, k, design.n_tokens)
    asked = []

    class Watch:
        def schedule(self, state):
            asked.append(design.policy.schedule(state))
            return asked[-1]

    model = cp.load_model("tiny")
    trace = cp.replay(design.trace(n_steps), cp.Engine(model, Watch()), decide=True)
    for plan, batch in list(zip(asked, [step.batch for step in trace.steps]))[SKIP:]:
        assert dict(plan.tokens) == dict(zip(batch.rid, batch.length))


def test_the_grid_varies_the_three_apart():
    kinds = {(d.n_decodes, d.n_chunks, d.length) for d in grid((0, 4), (0, 1, 2), (8, 32))}
    assert (0, 0, 8) not in kinds and (4, 0, 8) in kinds and (4, 0, 32) not in kinds
    assert len(kinds) == 1 + 2 * 2 * 2


def test_medians_outvote_a_step_that_was_disturbed():
    model, design = cp.load_model("tiny"), Design(3, 1, 8)
    traces = [cp.replay(design.trace(3), cp.Engine(model, design.policy), decide=True) for _ in range(3)]
    traces[1].timings["inputs"][SKIP] = 99.0
    one = medians(traces)
    assert one.timings["inputs"][SKIP] < 1 and len(one.steps) == len(traces[0].steps)
    ((batch, took),) = timed([one], "inputs")
    assert took == median(one.timings["inputs"][SKIP:]) and batch.totals().n_decodes == 3


# --- the profiler's trace -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    out = tmp_path_factory.mktemp("profile") / "trace.json"
    assert bench.main(["profile", "--steps", "2", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("which", ["run", "committed"])
def test_a_profile_has_parts_operators_and_no_path(profiled, which):
    path = profiled if which == "run" else RESULTS / "profile-cpu.json"
    assert path.stat().st_size < 300_000
    document = json.loads(path.read_text())
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert all(set(event) == {"ph", "name", "pid", "tid", "ts", "dur"} for event in events)
    assert not any("/" in event["name"] or ".py" in event["name"] for event in events)
    assert document["provenance"]["commit"]
    spans = profile_spans(path)
    n = 2 if which == "run" else 3
    for name in ("decide", "blocks", "inputs", "pass", "read", "book"):
        assert sum(span[0] == name for span in spans["parts"]) >= n
    for a, b in pairwise(spans["parts"]):
        assert a[2] <= b[1] + 0.02, "no moment belongs to two parts"
    passes = [span for span in spans["parts"] if span[0] == "pass"]
    inside = sum(any(a <= x and y <= b for _, a, b in passes) for _, x, y in spans["operators"])
    assert inside > 0.5 * len(spans["operators"]), "the model's operators run in the pass"
    drawn = cp.profile_picture(path)
    begin, end = between_passes(spans["parts"])
    assert cp.measured((end - begin) / 1e6) in drawn.alt and "building inputs" in drawn.alt
    assert drawn.svg == cp.profile_picture(document).svg


def test_a_profile_for_a_page_is_quiet_and_leaves_no_trace():
    """In a process of its own, as in a notebook: what another test did to the profiler cannot be undone."""
    code = (
        "import os, torch, chunkprefill as cp\n"
        "before = torch.get_num_threads()\n"
        "document = cp.profile_steps(n_steps=2)\n"
        "assert torch.get_num_threads() == before and 'KINETO_LOG_LEVEL' not in os.environ\n"
        "assert 'building inputs' in cp.profile_picture(document).alt\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=clean, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with pytest.raises(ValueError, match="1 steps: two are needed"):
        cp.profile_steps(n_steps=1)


@given(st.data())
def test_innermost_gives_each_moment_to_the_deepest(data):
    """Against a plain count of moments, on random spans that nest."""

    def nested(low, high, depth):
        spans, at = [], low
        while at < high and len(spans) < 4:
            a = data.draw(st.integers(at, high))
            b = data.draw(st.integers(a, high))
            if b > a:
                spans.append((f"{depth} {a}", float(a), float(b)))
                if depth < 3:
                    spans += nested(a, b, depth + 1)
            at = b + 1
        return spans

    spans = nested(0, 30, 0)
    cut = profile.innermost(spans)
    for moment in range(30):
        over = [s for s in spans if s[1] <= moment and moment + 1 <= s[2]]
        want = max(over, key=lambda s: int(s[0].split()[0]))[0] if over else None
        found = [s[0] for s in cut if s[1] <= moment and moment + 1 <= s[2]]
        assert found == ([want] if want else [])
    top = profile.outermost(spans)
    assert all(a[2] <= b[1] for a, b in pairwise(top))


LANE = {"ph": "M", "tid": 1, "name": "thread_name", "args": {"name": "parts"}}
PASS = {"ph": "X", "tid": 1, "name": "pass", "ts": 0, "dur": 1}
HOSTILE = {
    "no JSON": ("x{", "no JSON"),
    "deep": ("[" * 100_000, "no JSON"),
    "a list": ("[]", "traceEvents"),
    "no events": ("{}", "traceEvents"),
    "events a number": ('{"traceEvents": 3}', "traceEvents"),
    "an event a number": ('{"traceEvents": [3]}', "event 0"),
    "no time": (json.dumps({"traceEvents": [LANE, {"ph": "X", "tid": 1, "name": "a"}]}), "event 1"),
    "no such lane": (json.dumps({"traceEvents": [PASS]}), "event 0"),
    "before the beginning": (json.dumps({"traceEvents": [LANE, PASS | {"ts": -1}]}), "event 1"),
    "endless": (json.dumps({"traceEvents": [LANE, PASS | {"dur": float("inf")}]}), "event 1"),
    "a list for a lane": (json.dumps({"traceEvents": [LANE | {"tid": []}]}), "event 0"),
    "no parts": (json.dumps({"traceEvents": []}), "no lane of parts"),
    "one pass": (json.dumps({"traceEvents": [LANE, PASS]}), "two are needed"),
}


@pytest.mark.parametrize("text, words", HOSTILE.values(), ids=HOSTILE)
def test_a_foreign_trace_gets_words(tmp_path, text, words):
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        cp.profile_picture(path)


def test_a_huge_trace_is_not_read(tmp_path):
    path = tmp_path / "huge.json"
    path.write_text(" " * (MOST_BYTES + 1))
    with pytest.raises(ValueError, match=r"huge\.json: 5,000,001 bytes, at most 5,000,000"):
        cp.profile_picture(path)


def test_words_of_a_stranger_are_words_in_the_picture():
    events = [LANE, PASS, PASS | {"name": "<script>x</script>", "ts": 2}, PASS | {"ts": 4}]
    drawn = cp.profile_picture({"traceEvents": events})
    assert "<script>" not in drawn._repr_html_()
