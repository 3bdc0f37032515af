"""Sweeps: the same rows on every executor, nothing lost when workers or the sweep itself are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from chunkprefill.scheduling.core import Plan, ScheduleError
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.sweep import Task, simulated, summarise, sweep
from chunkprefill.simulation.workloads import documents_and_chats, poisson
from tests.needs import ROOT

POLICIES = {
    "chunked 128": ChunkedPrefill(128),
    "chunked 512": ChunkedPrefill(512),
    "first": PrefillFirst(2048),
}
FAST = {"executor": None, "progress": False}


def workloads(n=30):
    return {f"rate {rate}": poisson(n, rate, seed=rate) for rate in (2, 8)}


@pytest.fixture(scope="module")
def expected():
    return sweep(workloads(), POLICIES, **FAST)


def test_rows_are_what_simulate_gives_in_order(expected):
    labels = [(w, p) for w in workloads() for p in POLICIES]
    assert [(row["workload"], row["policy"]) for row in expected] == labels
    for row, (w, p) in zip(expected, labels):
        assert row == {"workload": w, "policy": p, **summarise(simulate(workloads()[w], POLICIES[p]))}


@pytest.mark.parametrize("make", [lambda: 2, lambda: ThreadPoolExecutor(3), lambda: ProcessPoolExecutor(2)])
def test_every_executor_gives_the_same_rows(expected, make):
    assert sweep(workloads(), POLICIES, executor=make(), progress=False) == expected


def test_policies_without_labels_and_an_own_reduce():
    rows = sweep({"w": poisson(5, 5)}, [ChunkedPrefill(64)], reduce=lambda t: {"n": len(t.steps)}, **FAST)
    assert rows[0]["policy"] == repr(ChunkedPrefill(64)) and rows[0]["n"] > 0
    with pytest.raises(ValueError, match="label"):
        sweep({"w": poisson(5, 5)}, [ChunkedPrefill(64), ChunkedPrefill(64)], **FAST)
    with pytest.raises(ValueError, match="JSON"):
        sweep({"w": poisson(5, 5)}, [ChunkedPrefill(64)], reduce=lambda t: {"trace": t}, **FAST)


# --- results on disk ----------------------------------------------------------------------------------


def test_a_second_sweep_runs_only_what_is_missing(tmp_path, expected, monkeypatch):
    out = tmp_path / "rows.jsonl"
    some = dict(list(POLICIES.items())[:1])
    sweep(workloads(), some, out=out, **FAST)
    ran: list[Task] = []
    monkeypatch.setattr(
        "chunkprefill.simulation.sweep.simulated", lambda task: ran.append(task) or simulated(task)
    )
    assert sweep(workloads(), POLICIES, out=out, **FAST) == expected
    assert {(t.workload, t.policy) for t in ran} == {
        (w, p) for w in workloads() for p in set(POLICIES) - set(some)
    }
    ran.clear()
    assert sweep(workloads(), POLICIES, out=out, **FAST) == expected and not ran
    sweep(workloads(31), some, out=out, **FAST)  # other requests under an old label
    assert len(ran) == 2
    sweep(
        workloads(), {"chunked 128": ChunkedPrefill(129)}, out=out, **FAST
    )  # another policy under an old label
    assert len(ran) == 4


def test_a_file_cut_at_any_byte_resumes_and_a_foreign_one_is_refused(tmp_path, expected):
    out = tmp_path / "rows.jsonl"
    sweep(workloads(), POLICIES, out=out, **FAST)
    whole = out.read_bytes()
    for cut in [0, 1, 5, 9, *random.Random(0).sample(range(len(whole)), 5), len(whole) - 1]:
        out.write_bytes(whole[:cut])
        assert sweep(workloads(), POLICIES, out=out, **FAST) == expected
        assert out.read_bytes().count(b"\n") == len(expected)
    for foreign in (b"my diary\n", b"[1, 2]\n", b'{"key": 1}\n', b"[" * 100_000 + b"\n", b"my diary"):
        out.write_bytes(foreign)
        with pytest.raises(ValueError, match=r"rows\.jsonl"):
            sweep(workloads(), POLICIES, out=out, **FAST)
        assert out.read_bytes() == foreign


KILLED = """
import sys, time
from pathlib import Path
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.sweep import summarise, sweep
from chunkprefill.simulation.workloads import poisson

out = Path(sys.argv[1])

def slowly(trace):  # after five results none comes before the file `held` is gone
    while out.with_name("held").exists() and out.exists() and out.read_bytes().count(b"\\n") >= 5:
        time.sleep(0.05)
    return summarise(trace)

if __name__ == "__main__":
    policies = {str(b): ChunkedPrefill(b) for b in range(64, 84)}
    requests = {"w": poisson(20, 5.0)}
    rows = sweep(requests, policies, reduce=slowly, out=out, executor=2, progress=False)
    print(len(rows), len({row["policy"] for row in rows}))
"""


def test_a_killed_sweep_resumes(tmp_path):
    script, out = tmp_path / "killed.py", tmp_path / "rows.jsonl"
    script.write_text(KILLED)
    (tmp_path / "held").touch()
    command = [sys.executable, str(script), str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    victim = subprocess.Popen(command, env=env, cwd=tmp_path, start_new_session=True)
    while (not out.exists() or out.read_bytes().count(b"\n") < 3) and victim.poll() is None:
        time.sleep(0.02)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    (tmp_path / "held").unlink()
    before = [line for line in out.read_bytes().split(b"\n") if line.endswith(b"}}")]
    assert 3 <= len(before) < 20
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["20", "20"], done.stderr
    after = out.read_bytes().splitlines()
    assert after[: len(before)] == before and len(after) == 20  # nothing lost, nothing twice
    assert len({json.loads(line)["key"] for line in after}) == 20


# --- workers that die or fail -------------------------------------------------------------------------


@dataclass(frozen=True)
class DiesOnce:
    """Kills its own process in the first simulation that runs it; later ones go well."""

    mark: str

    def schedule(self, state):
        try:
            Path(self.mark).touch(exist_ok=False)
        except FileExistsError:
            return ChunkedPrefill(128).schedule(state)
        os._exit(9)


@dataclass(frozen=True)
class DiesAlways:
    def schedule(self, state):
        os._exit(9)


@dataclass(frozen=True)
class Wrong:
    def schedule(self, state):
        return Plan({"ghost": 1})


def test_a_dead_worker_process_loses_no_result(tmp_path, expected, capfd):
    policies = {"dies": DiesOnce(str(tmp_path / "mark")), **POLICIES}
    rows = sweep(workloads(), policies, executor=2, out=tmp_path / "rows.jsonl", progress=False)
    assert [row for row in rows if row["policy"] != "dies"] == expected
    assert "run again" in capfd.readouterr().err
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == len(rows)


def test_workers_that_keep_dying_end_the_sweep_with_a_reason(tmp_path):
    with pytest.raises(RuntimeError, match="workers died"):
        sweep(workloads(), {"dies": DiesAlways()}, executor=1, progress=False)


def test_one_failing_simulation_does_not_take_the_others_along(tmp_path, expected):
    out = tmp_path / "rows.jsonl"
    with pytest.raises(ScheduleError, match="ghost") as caught:
        sweep(workloads(), {"wrong": Wrong(), **POLICIES}, executor=2, out=out, progress=False)
    assert "under wrong" in caught.value.__notes__[0]
    assert out.read_bytes().count(b"\n") == len(expected)


def test_dask_on_localhost_survives_a_killed_worker(tmp_path, expected):
    """A real scheduler and two real worker processes; one is killed while the sweep runs."""
    import distributed

    slow = {f"docs {i}": documents_and_chats(n_documents=3, n_chats=12, seed=i) for i in range(8)}
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        assert sweep(workloads(), POLICIES, executor=executor, progress=False) == expected
        pids = list(client.run(os.getpid).values())
        assert len(pids) == 2 and os.getpid() not in pids
        out, here = tmp_path / "rows.jsonl", sweep(slow, POLICIES, **FAST)

        def kill_one(trace):  # in the worker: the first to come here ends its process
            mark = Path(str(out) + ".killed")
            try:
                mark.touch(exist_ok=False)
            except FileExistsError:
                return summarise(trace)
            os.kill(os.getpid(), signal.SIGKILL)

        rows = sweep(slow, POLICIES, executor=executor, out=out, reduce=kill_one, progress=False)
        assert Path(str(out) + ".killed").exists()
        assert rows == here and out.read_bytes().count(b"\n") == len(here)
