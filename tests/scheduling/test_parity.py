"""`VllmV1` decides as vLLM does: decisions recorded from it, and a plain second telling of its rules."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.__main__ import main as cli
from chunkprefill.scheduling import parity
from tests.scheduling.plain_vllm import record

FILES = sorted((Path(__file__).parents[1] / "data" / "parity").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded_decisions(path):
    for case in parity.load(str(path)):
        assert (difference := parity.compare(case)) is None, f"{case.name}: {difference}"


def test_the_command_counts_cases_steps_and_differences(capsys):
    assert cli(["parity", *map(str, FILES)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "60 cases, 4640 steps, 0 differences"
    assert all(re.fullmatch(r"\S+: equal, \d+ steps", line) for line in lines[:-1]) and len(lines) == 61


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
        step[field]["nobody"] = 3
    else:
        step[field].append("nobody")
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
        broken(requests=5),
        broken(requests=[{"id": "a"}]),
        broken(requests=[{**GOOD["requests"][0], "prompt_tokens": 0}]),
        broken(requests=[{**GOOD["requests"][0], "arrival_step": 0.5}]),
        broken(requests=[{**GOOD["requests"][0], "arrival_step": -1}]),
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


def test_a_missing_file_is_said(tmp_path, capsys):
    assert cli(["parity", str(tmp_path / "none.json")]) != 0
    assert "none.json" in capsys.readouterr().err


@st.composite
def recordings(draw):
    """A configuration and requests that vLLM itself could serve to the end."""
    size = draw(st.sampled_from((1, 2, 4, 8, 16)))
    max_len = draw(st.integers(10, 90))
    chunked = draw(st.booleans())
    n = draw(st.integers(1, 10))
    requests = []
    for i in range(n):
        prompt = draw(st.integers(1, max_len - 1))
        arrival, priority = draw(st.integers(0, 25)), draw(st.integers(0, 3))
        requests.append((f"q{i}", arrival, prompt, draw(st.integers(1, 40)), priority))
    largest = max(-(-(min(p + o, max_len) - 1) // size) for _, _, p, o, _ in requests)
    config = {
        "max_num_batched_tokens": draw(st.integers(1 if chunked else max_len, 120)),
        "max_num_seqs": draw(st.integers(1, 10)),
        "long_prefill_token_threshold": draw(st.sampled_from((0, 0, 1, 3, 10, 50))),
        "enable_chunked_prefill": chunked,
        "max_model_len": max_len,
        "policy": draw(st.sampled_from(("fcfs", "priority"))),
        "scheduler_reserve_full_isl": draw(st.booleans()),
        "watermark": draw(st.sampled_from((0.0, 0.0, 0.05, 0.29, 0.5))),
    }
    return requests, config, largest + draw(st.integers(0, 12)), size


@settings(max_examples=600, deadline=None)
@given(recordings())
def test_a_plain_telling_of_the_rules_agrees(recording):
    requests, config, n_blocks, size = recording
    steps = record(requests, config, n_blocks, size)
    asked = tuple(cp.Request(rid, t, p, o, None, prio) for rid, t, p, o, prio in requests)
    case = parity.Case("plain", cp.VllmV1(**config), cp.BlockPool(n_blocks, size), asked, steps)
    event(f"evictions: {min(3, sum(len(s['preempted']) for s in steps))}")
    assert (difference := parity.compare(case)) is None, difference
