"""What each problem set asks: its references, a policy that nobody ships, records that agree with the run."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkprefill.exercises import clinic
from chunkprefill.grading import problems
from chunkprefill.grading.problems import draw, key, ps1_code, ps1_order, ps2, ps2_load, ps3_case
from chunkprefill.grading.session import LocalSession
from chunkprefill.scheduling.core import ScheduleError
from chunkprefill.scheduling.policies import (
    Alternate,
    ChunkedPrefill,
    PrefillFirst,
    RequestLevel,
    SerialChunks,
)
from chunkprefill.scheduling.vllm import VllmV1
from tests.grading.submissions import secrets, solved

# --- PS1 ----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
def test_an_order_that_works_is_accepted_whichever_it_is(seed: int) -> None:
    """Every order that breaks no rule, and has every step, gets full points: `cut` and `room` swap freely."""
    rng = random.Random(seed)
    lengths = [4] * rng.randint(2, 5)
    right = [name for name, _ in ps1_order.steps_of(lengths)]
    assert ps1_order.broken(right, len(lengths)) == ""
    swapped = ["room", "cut", *right[2:]]
    assert ps1_order.broken(swapped, len(lengths)) == ""
    i, j = sorted(rng.sample(range(1, len(right)), 2))
    moved = (
        right[:i] + right[i + 1 : j + 1] + [right[i]] + right[j + 1 :]
    )  # a step comes after one that needs it
    assert bool(ps1_order.broken(moved, len(lengths))) == (not (right[i] == "room" and j == i))


def test_attention_with_a_wide_window_is_the_models_own() -> None:
    import torch

    from chunkprefill.model.attention import reference

    rng = np.random.default_rng(3)
    for start, length, heads in ((0, 5, (2, 2)), (7, 3, (4, 2)), (11, 1, (6, 3))):
        q = rng.standard_normal((length, heads[0], 8))
        k, v = rng.standard_normal((2, start + length, heads[1], 8))
        ours = ps1_code.Window(10**6, 0).attend(q, k, v, start)
        theirs = reference(*(torch.from_numpy(x) for x in (q, k, v)))
        assert np.allclose(ours, theirs.numpy(), atol=1e-12)


def test_keys_are_turned_by_the_rule_in_both_pairings() -> None:
    rng = np.random.default_rng(4)
    k, positions = rng.standard_normal((5, 2, 8)), np.arange(7, 12)
    angles = positions[:, None] * 5000.0 ** (-2 * np.arange(4) / 8)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    halves = ps1_code.Paging(4, 5000.0, True).turned(k, positions)
    assert np.allclose(halves[..., :4], k[..., :4] * cos - k[..., 4:] * sin)
    pairs = ps1_code.Paging(4, 5000.0, False).turned(k, positions)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    assert np.allclose(pairs[..., order], ps1_code.Paging(4, 5000.0, True).turned(k[..., order], positions))


def test_the_numbers_of_ps1_are_those_of_a_run() -> None:
    """Counted again, chunk by chunk and query by query."""
    for secret in secrets(10):
        question = next(q for q in key.sheet_of("PS1", secret).questions if q.name == "counts")
        n, chunk = (
            int(x.replace(",", "")) for x in re.findall(r"of ([\d,]+)(?: tokens is| \(the)", question.text)
        )
        layers, heads, size = map(
            int, re.search(r"(\d+) layers with (\d+) .* heads of (\d+)", question.text).groups()
        )  # type: ignore[union-attr]
        space: dict[str, Any] = {}
        exec(question.solution, space)
        spans = [(s, min(s + chunk, n)) for s in range(0, n, chunk)]
        assert space["counts"] == {
            "passes": len(spans),
            "reread": sum(start for start, _ in spans),
            "last_pairs": sum(p + 1 for p in range(*spans[-1])),
            "cache_bytes": n * layers * heads * size * 2 * 2,
        }


# --- PS2 ----------------------------------------------------------------------------------------------


def shipped() -> Iterator[Any]:
    """Every policy that the package has, over a grid of its parameters."""
    budgets = (16, 32, 48, 64, 80, 96, 112, 128, 160, 200, 256, 360, 512, 1024, 4096)
    for budget in budgets:
        yield from (ChunkedPrefill(budget, order=order) for order in ("arrival", "shortest", "priority"))
        yield ChunkedPrefill(budget, 8)
        yield Alternate(budget)
        yield SerialChunks(max(1, budget // 4))
        yield SerialChunks(max(1, budget // 2))
        yield PrefillFirst(4 * budget)
    for budget in (128, 200, 256, 320, 1024):
        for chunk in (24, 32, 40, 48, 64):
            yield VllmV1(budget, long_prefill_token_threshold=chunk)
            yield PrefillFirst(budget, chunk, True)
        yield VllmV1(budget)
        yield VllmV1(budget, policy="priority", long_prefill_token_threshold=40)
        yield PrefillFirst(budget, 40)
        yield PrefillFirst(budget, None, True)
    yield from (RequestLevel(n) for n in (1, 4, 16, 64))


def hidden(secret: str) -> list[ps2_load.Load]:
    s = ps2_load.service(draw.stream(secret, "PS2", "shown", "service"))
    return ps2_load.loads(draw.stream(secret, "PS2", "hidden", "loads"), s)


def keeps_all(load: ps2_load.Load, policy: Any) -> bool:
    try:
        return all(load.kept(load.run(policy, hopeless=load.limits)).values())
    except (ps2_load.Endless, ScheduleError):
        return False


def test_no_policy_that_the_package_ships_keeps_every_promise_and_the_reference_does() -> None:
    from tqdm import tqdm

    policies = list(shipped())
    for secret in tqdm(secrets(50), desc="secrets", mininterval=5):
        loads = hidden(secret)
        assert all(keeps_all(load, load.reference()) for load in loads)
        loads.sort(key=lambda load: ("row", "stream", "alone").index(load.name))  # the dearest last
        passed = [policy for policy in policies if all(keeps_all(load, policy) for load in loads)]
        assert not passed, (secret, passed)


def test_stopping_early_never_changes_the_verdict() -> None:
    """`hopeless` is a short cut: what it stops does not keep every promise when it runs to its end either."""
    for secret in secrets(2):
        for load in hidden(secret):
            for policy in list(shipped())[::9]:
                stopped = False
                try:
                    load.run(policy, hopeless=load.limits)
                except ps2_load.Endless:
                    stopped = True
                if stopped:
                    with suppress(ps2_load.Endless):
                        assert not all(load.kept(load.run(policy)).values())


def test_who_follows_the_text_in_another_way_keeps_every_promise_too() -> None:
    """A larger share for documents, chunks a little shorter than would fit: within the text."""

    class Careful(ps2.Owed):
        def longest(self, cached, pending, left):
            return super().longest(cached, pending, 0.97 * left)

    for secret in secrets(10):
        for load in hidden(secret):
            ours = load.reference()
            values = [getattr(ours, name) for name in ours.__dataclass_fields__]
            for other in (replace(ours, share=ours.share + 0.1), Careful(*values)):
                assert keeps_all(load, other), (secret, load.name, other)


def test_statements_are_true_about_as_often_as_false() -> None:
    answers = [solved("PS2", secret, ("statements",))["statements"] for secret in secrets(20)]
    truths = re.findall("True|False", " ".join(answers))
    assert 0.3 < truths.count("True") / len(truths) < 0.7


TOKENS = st.integers(-5, 90) | st.booleans() | st.floats() | st.none()


@given(st.lists(st.dictionaries(st.sampled_from(["long", "short", "x", 1]), TOKENS), max_size=9))
def test_any_plan_is_marked(rows: list[Any]) -> None:
    question = key.sheet_of("PS2", secrets(1)[0]).questions[0]
    verdict = question.judge(type("Answers", (), {"value": lambda self, name: rows})())  # type: ignore[misc]
    assert verdict.points in (0, 2, 4)


# --- PS3 ----------------------------------------------------------------------------------------------


def test_the_records_say_what_the_dashboard_says() -> None:
    """Every k-th step is enough: numbers from the records are near those of the whole run."""
    for secret in secrets(3):
        rng = draw.stream(secret, "PS3", "shown", "case")
        case = ps3_case.drawn(f"{rng.getrandbits(128):032x}", rng.choice(list(clinic.FAULTS)))
        records = ps3_case.Records(case)
        assert len(records.given()) < 60_000
        for name in ("step_p50_ms", "prompt_steps", "decodes", "cpu_step_ms", "gpu_idle"):
            whole = case.metric(ps3_case.ASKED[name][0]) * (1e3 if name.endswith("_ms") else 1)
            assert records.numbers[name] == pytest.approx(whole, rel=0.25, abs=0.01), name
        words = [clinic.ROWS[row][1] for row, _ in ps3_case.ASKED.values()]
        assert not any(f"| {each} |" in records.dashboard() for each in words)


def test_the_records_as_they_are_printed_give_the_right_numbers() -> None:
    """What a student computes from the cell is what is marked as right."""
    sheet = key.sheet_of("PS3", secrets(1)[0])
    question = next(q for q in sheet.questions if q.name == "report")
    space: dict[str, Any] = {}
    exec(question.given, space)
    gpu, cpu, decodes, prompts = np.array(space["steps"], float).T
    exec(question.solution, space)
    right = space["report"]
    assert right["step_p99_ms"] == pytest.approx(np.quantile(gpu, 0.99), rel=1e-4)
    assert right["gpu_idle"] == pytest.approx(cpu.sum() / (cpu + gpu).sum(), rel=1e-4)
    assert right["decodes"] == pytest.approx(decodes[decodes > 0].mean(), rel=1e-4)
    assert right["prompt_tokens"] == pytest.approx(np.median(prompts[prompts > 0]), rel=1e-4)


def test_every_fault_of_the_clinic_can_be_drawn() -> None:
    seen = {draw.stream(secret, "PS3", "shown", "case") for secret in secrets(50)}
    faults = []
    for rng in seen:
        rng.getrandbits(128)
        faults.append(rng.choice(list(clinic.FAULTS)))
    assert set(faults) == set(clinic.FAULTS)


def test_no_question_names_a_path_or_a_helper_of_this_machine() -> None:
    source = "".join(path.read_text() for path in Path(inspect.getfile(problems)).parent.glob("*.py"))
    assert not re.search(r"/(home|root|tmp|work)/", source)
    session = LocalSession([])
    assert session.troubles == []
