"""The benches of the model: wrong options are errors of usage, and no wrong output meets a target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import serve
from chunkprefill.simulation.workloads import poisson

COUNTS = {
    "prefill": ("--layers", "--repeats", "--prompts", "--threads"),
    "serve": ("--layers", "--requests", "--budget", "--batch", "--repeats", "--threads"),
}


def refused(capsys: Any, name: str, option: str, value: str) -> str:
    with pytest.raises(SystemExit) as left:
        bench.main([name, f"{option}={value}"])
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("value", ["0", "-3", "2.5", "all"])
@pytest.mark.parametrize(("name", "option"), [(name, o) for name, options in COUNTS.items() for o in options])
def test_a_count_below_one_is_an_error_of_usage(capsys: Any, name: str, option: str, value: str) -> None:
    told = refused(capsys, name, option, value)
    assert f"argument {option}: " in told and value in told


def test_a_chunk_of_0_is_the_whole_prompt_and_none_is_below(capsys: Any) -> None:
    assert "-1 is below 0" in refused(capsys, "prefill", "--chunks", "-1")


@pytest.mark.parametrize("name", list(COUNTS))
@pytest.mark.parametrize("dtype", ["foo", "int64", "load", ""])
def test_a_dtype_is_one_of_the_choices(capsys: Any, name: str, dtype: str) -> None:
    assert "bfloat16" in refused(capsys, name, "--dtype", dtype)


@pytest.mark.parametrize("n_wrong", [0, 1])
def test_only_equal_outputs_meet_a_target(n_wrong: int, tmp_path: Path, monkeypatch: Any) -> None:
    """A rival far slower than any target, by a clock in the test's hands: met only if every output is ours."""
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    def theirs(model: Any, requests: Any, batch: int, budget: int) -> dict[str, serve.Run]:
        def run() -> list[list[int]]:
            outputs = serve.ours(model, requests, budget)()
            now[0] += 10.0
            return [[-1]] * n_wrong + outputs[n_wrong:]

        return {"continuous batching": run}

    monkeypatch.setitem(serve.CLOCKS, "wall", clock)
    monkeypatch.setattr(serve, "theirs", theirs)
    monkeypatch.setattr(serve, "TARGETS", {"continuous batching": 1.01})
    monkeypatch.setattr(serve, "poisson", lambda n, rate, **more: poisson(n, rate, prompt=(4, 9), output=2))
    out = tmp_path / "serve.json"
    assert bench.main(["serve", "--layers", "1", "--requests", "2", "--repeats", "1", "--out", str(out)]) == 0
    rival = next(row for row in json.loads(out.read_text())["rows"] if row["server"] == "continuous batching")
    assert rival["over_ours"] > 1.01 and rival["equal_outputs"] == 2 - n_wrong
    assert rival["met"] is (n_wrong == 0)
