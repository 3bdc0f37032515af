"""`VllmV1` decides as vLLM does: decisions recorded from it, and a plain second telling of its rules."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.__main__ import main as cli
from chunkprefill.scheduling import parity
from tests.library.scheduling.plain_vllm import record
from tests.needs import ROOT

FILES = sorted((ROOT / "tests" / "data" / "parity").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded_decisions(path):
    for case in parity.load(str(path)):
        assert (difference := parity.compare(case)) is None, f"{case.name}: {difference}"


def test_the_command_counts_cases_steps_and_differences(capsys):
    assert cli(["parity", *map(str, FILES)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "120 cases, 8501 steps, 0 differences"
    assert all(re.fullmatch(r"\S+: equal, \d+ steps", line) for line in lines[:-1]) and len(lines) == 121


FIELDS = st.sampled_from(parity.FIELDS)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([f for f in FILES if "random" not in f.stem]), st.data())
def test_any_change_of_a_recording_is_found_at_its_step(tmp_path_factory, path, data):
    document = json.loads(path.read_text())
    i = data.draw(st.integers(0, len(document["steps"]) - 1))
    field = data.draw(FIELDS)
    step = document["steps"][i]
    if isinstance(step[field], int):
        step[field] += 1
    elif field == "scheduled" and len(step[field]) > 1 and data.draw(st.booleans()):
        step[field] = dict(reversed(step[field].items()))  # the same tokens in another order
    elif field == "scheduled":
        step[field]["ghost"] = 3
    else:
        step[field].append("ghost")
    copy = tmp_path_factory.mktemp("parity") / path.name
    copy.write_text(json.dumps(document))
    (case,) = parity.load(str(copy))
    assert parity.compare(case).startswith(f"step {i} differs in {field}\n  recorded: ")
    assert parity.main([copy, path]) == 1


def test_steps_too_many_or_too_few_are_differences(tmp_path, capsys):
    document = json.loads((FILES[0]).read_text())
    n = len(document["steps"])
    for steps in (document["steps"][:-1], [*document["steps"], {**document["steps"][-1], "step": n}]):
        (tmp_path / "case.json").write_text(json.dumps({**document, "steps": steps}))
        assert parity.main([tmp_path / "case.json"]) == 1
    out = capsys.readouterr().out
    assert f"step {n - 1} differs\n  recorded: no such step" in out
    assert f"step {n} differs" in out and "replayed: no such step" in out and "1 differences" in out


GOOD = json.loads(FILES[0].read_text())


def broken(**change):
    return json.dumps({**GOOD, **change})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "null",
        '{"cases": 7}',
        '{"cases": [3]}',
        FILES[0].read_text()[:700],
        "[" * 100_000,
        broken(config={}),
        broken(config={**GOOD["config"], "flux": 1}),
        broken(config={**GOOD["config"], "policy": "lifo"}),
        broken(config={**GOOD["config"], "block_size": 0}),
        broken(config={**GOOD["config"], "num_blocks": "many"}),
        broken(config={**GOOD["config"], "max_num_batched_tokens": -1}),
        broken(config={**GOOD["config"], "watermark": "x"}),
        broken(config={**GOOD["config"], "prefix_caching": "false"}),
        broken(config={**GOOD["config"], "async_scheduling": 0}),
        broken(config={**GOOD["config"], "enable_chunked_prefill": "false"}),
        broken(config={**GOOD["config"], "scheduler_reserve_full_isl": None}),
        broken().replace('"num_blocks"', '"num_blocks": 3, "num_blocks"'),
        broken(requests=5),
        broken(requests=[{"id": "a"}]),
        broken(requests=[{**GOOD["requests"][0], "prompt_tokens": 0}]),
        broken(requests=[{**GOOD["requests"][0], "arrival_step": 0.5}]),
        broken(requests=[{**GOOD["requests"][0], "arrival_step": -1}]),
        broken(requests=[{**GOOD["requests"][0], "arrival_step": "0"}]),
        broken(requests=[{**GOOD["requests"][0], "prompt_tokens": 5, "segments": [["a", 4]]}]),
        broken(requests=[{**GOOD["requests"][0], "output_tokens": 10**12}]),
        broken(requests=GOOD["requests"] + GOOD["requests"][:1]),
        broken(steps=5),
        broken(steps=[{"step": 0}]),
        broken(steps=[{**GOOD["steps"][0], "step": 3}]),
        broken(steps=[{**GOOD["steps"][0], "scheduled": []}]),
    ],
)
def test_a_malformed_file_gets_one_clear_line(tmp_path, capsys, text):
    (tmp_path / "bad.json").write_text(text)
    assert cli(["parity", str(tmp_path / "bad.json"), str(FILES[0])]) != 0
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and str(tmp_path / "bad.json") in err and "Traceback" not in err
    assert out.splitlines()[-1].startswith("1 cases, ")


def test_a_name_cannot_steer_a_terminal_or_write_a_line(tmp_path, capsys):
    (tmp_path / "bad.json").write_text(broken(name="a\x1b[2J\n9 cases"))
    assert cli(["parity", str(tmp_path / "bad.json")]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert "\x1b" not in first and "9 cases: equal" in first and last.startswith("1 cases, ")


def test_a_missing_file_is_said(tmp_path, capsys):
    assert cli(["parity", str(tmp_path / "none.json")]) != 0
    assert "none.json" in capsys.readouterr().err


@st.composite
def recordings(draw):
    """A configuration and requests that vLLM itself could serve to the end."""
    size = draw(st.sampled_from((1, 2, 4, 8, 16)))
    max_len = draw(st.integers(10, 90))
    chunked, caching = draw(st.booleans()), draw(st.booleans())
    n = draw(st.integers(1, 10))
    requests = []
    for i in range(n):
        names = st.sampled_from(("x", "x", "y", f"own{i}")) if caching else st.just(f"own{i}")
        cuts = draw(st.lists(st.tuples(names, st.integers(1, max_len)), min_size=1, max_size=3))
        segments, left = [], draw(st.integers(1, max_len - 1))
        for name, length in cuts:
            if min(length, left):
                segments.append((name, min(length, left)))
                left -= min(length, left)
        arrival, priority = draw(st.integers(0, 25)), draw(st.integers(0, 3))
        requests.append((f"q{i}", arrival, tuple(segments), draw(st.integers(1, 40)), priority))
    prompts = [sum(length for _, length in segments) for _, _, segments, _, _ in requests]
    largest = max(-(-(min(p + r[3], max_len) - 1) // size) for p, r in zip(prompts, requests))
    config = {
        "max_num_batched_tokens": draw(st.integers(1 if chunked else max_len, 120)),
        "max_num_seqs": draw(st.integers(1, 10)),
        "long_prefill_token_threshold": draw(st.sampled_from((0, 0, 1, 3, 10, 50))),
        "enable_chunked_prefill": chunked,
        "max_model_len": max_len,
        "policy": draw(st.sampled_from(("fcfs", "priority"))),
        "scheduler_reserve_full_isl": draw(st.booleans()),
        "watermark": draw(st.sampled_from((0.0, 0.0, 0.05, 0.29, 0.5))),
        "prefix_caching": caching,
        "async_scheduling": draw(st.booleans()),
    }
    return requests, config, largest + draw(st.integers(0, 12)), size


def told(recording):
    """A recording as a file has it, with the steps of the plain telling."""
    requests, config, n_blocks, size = recording
    plain = [
        (rid, at, [(name, i) for name, length in segments for i in range(length)], n, priority)
        for rid, at, segments, n, priority in requests
    ]
    steps = record(plain, config, n_blocks, size)
    names = ("id", "arrival_step", "segments", "output_tokens", "priority")
    return {
        "config": {**config, "num_blocks": n_blocks, "block_size": size},
        "requests": [dict(zip(names, row)) for row in requests],
        "steps": [{**step, "scheduled": dict(step["scheduled"])} for step in steps],
    }


@settings(max_examples=600, deadline=None)
@given(recordings())
def test_a_plain_telling_of_the_rules_agrees(recording):
    document = told(recording)
    (case,) = parity.cases_of(document, "plain")
    evictions = sum(len(step["preempted"]) for step in case.steps)
    event(f"evictions: {min(3, evictions)}, hits: {any(any(s.get('hits', {}).values()) for s in case.steps)}")
    assert (difference := parity.compare(case)) is None, difference


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_plain_telling_tells_the_recordings(path):
    """An oracle has to be held against vLLM too."""
    document = json.loads(path.read_text())
    for case in document.get("cases", [document]):
        config = dict(case["config"])
        n_blocks, size = config.pop("num_blocks"), config.pop("block_size")
        rows = []
        for r in case["requests"]:
            segments = r.get("segments") or [(r["id"], r["prompt_tokens"])]
            tokens = [(name, i) for name, length in segments for i in range(length)]
            rows.append((r["id"], r["arrival_step"], tokens, r["output_tokens"], r.get("priority", 0)))
        config = {"max_model_len": 10**9, **config}
        if config["max_model_len"] is None:
            config["max_model_len"] = 10**9
        for step, plain in zip(case["steps"], record(rows, config, n_blocks, size), strict=True):
            assert {**plain, "scheduled": dict(plain["scheduled"])}.items() <= step.items()


def test_drafts_take_their_share_of_the_budget():
    """Three drafts a decode: 10 tokens hold two decodes of 4 and one of 2, and a prompt waits for the rest."""
    requests = [cp.Request(i, 0.0, 1, 40) for i in range(3)] + [cp.Request("p", 3.0, 300, 2)]

    def rows(budget, drafts, second=8):
        policy = cp.VllmV1(budget, num_speculative_tokens=drafts)
        trace = cp.simulate(requests, policy, lambda batch: 1.0)
        return {c.rid: c.length for c in trace.steps[second].batch}

    assert rows(10, 0) == {0: 1, 1: 1, 2: 1, "p": 7}
    assert rows(12, 3) == rows(10, 3) == {0: 1, 1: 1, 2: 1}
    assert rows(16, 3) == {0: 1, 1: 1, 2: 1, "p": 4}
    assert rows(8, 3) == {0: 1, 1: 1}, "the third decode finds no token left"
    assert rows(3, 3) == {0: 1}
    with pytest.raises(ValueError, match=r"VllmV1: num_speculative_tokens.*-1"):
        cp.VllmV1(num_speculative_tokens=-1)
    assert str(cp.VllmV1(8)) == str(cp.VllmV1(8, num_speculative_tokens=0))


def test_no_draft_goes_beyond_the_longest_sequence():
    """Towards `max_model_len` there is place for 3, 2, 1, 0 drafts, and a prompt has what they leave of 4."""
    policy = cp.VllmV1(4, max_model_len=9, num_speculative_tokens=3)
    requests = [cp.Request("chat", 0.0, 4, 5), cp.Request("p", 0.5, 8, 1)]
    trace = cp.simulate(requests, policy, lambda batch: 1.0)
    rows = [{c.rid: c.length for c in step.batch} for step in trace.steps]
    assert rows[:3] == [{"chat": 4}, {"chat": 1}, {"chat": 1, "p": 1}]
    assert rows[3:] == [{"chat": 1, "p": 2}, {"chat": 1, "p": 3}, {"p": 2}]
