"""What each problem set asks: its references, a policy that is not shipped, records that agree with the run."""

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

from chunkprefill.scheduling.core import ScheduleError
from chunkprefill.scheduling.policies import (
    Alternate,
    ChunkedPrefill,
    PrefillFirst,
    RequestLevel,
    SerialChunks,
)
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill_course import clinic
from chunkprefill_grading import problems
from chunkprefill_grading.problems import (
    draw,
    key,
    ps1_attention,
    ps1_order,
    ps1_store,
    ps2_load,
    ps2_policy,
    ps3_case,
)
from chunkprefill_grading.sandbox.session import LocalSession, NoAnswer
from tests.grading.submissions import secrets
from tests.proof import draws

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


def plain(**changes: Any) -> ps1_attention.Attention:
    """A rule that is the model's own attention, but for what is changed."""
    names = ("T H D", "S Hkv D", "T H D")
    rule = ps1_attention.Attention(10**6, 3, 0.0, "sink", "distance", False, ("q", "k", "v", "start"), *names)
    return replace(rule, **changes)


def test_attention_with_a_wide_window_is_the_models_own() -> None:
    import torch

    from chunkprefill.model.attention import reference

    rng = np.random.default_rng(3)
    for start, length, heads in ((0, 5, (2, 2)), (7, 3, (4, 2)), (11, 1, (6, 3))):
        q = rng.standard_normal((length, heads[0], 8))
        k, v = rng.standard_normal((2, start + length, heads[1], 8))
        theirs = reference(*(torch.from_numpy(x) for x in (q, k, v)))
        assert np.allclose(plain().attend(q, k, v, start), theirs.numpy(), atol=1e-12)


def test_each_scale_and_a_score_for_no_key_by_hand() -> None:
    """Two keys, of scores a and b over a scale: weights are shares of e^a + e^b, or of that and 1."""
    q, k, v = (
        np.full((1, 1, 4), 1.0),
        np.array([[[1.0] * 4], [[0.5] * 4]]),
        np.array([[[1.0] * 4], [[3.0] * 4]]),
    )
    for scale, by in (("root", 2.0), ("half root", 4.0), ("width", 4.0), ("root of twice", 8**0.5)):
        a, b = np.exp(4 / by), np.exp(2 / by)
        for weights, more in (("all", 0.0), ("some", 1.0)):
            due = (a * 1.0 + b * 3.0) / (a + b + more)
            got = plain(scale=scale, weights=weights).attend(q, k, v, 1)
            assert np.allclose(got, due), (scale, weights)


def test_each_rule_of_attention_counted_by_hand() -> None:
    """One head, one query at position 5 over six keys: who is seen, and what becomes of a score."""
    p, j = np.array([[5]]), np.arange(6)[None, :]
    seen = {
        "sink": [0, 1, 2, 4, 5],  # the first three, the last two
        "stride": [0, 3, 4, 5],
        "blocks": [3, 4, 5],  # 3 to 5 are one block of three
        "parity": [2, 4, 5],  # 5 - 2 = 3
    }
    for rule, positions in seen.items():
        assert np.flatnonzero(plain(width=2, seen=rule).sees(p, j)[0]).tolist() == positions, rule
    scores = np.array([[1.0, -2.0, 0.5, 0.0, 3.0, 4.0]])
    due = {
        "capped": 0.5 * np.tanh(scores / 0.5),
        "distance": scores - 0.5 * np.array([[5, 4, 3, 2, 1, 0]]),
        "length": 0.5 * scores * np.log(7),
        "first": scores + np.array([[0, 0, 0, 0, 0, 0.5]]),
    }
    for rule, wanted in due.items():
        assert np.allclose(plain(scores=rule, number=0.5).scored(scores, p, j), wanted), rule


def storing(**changes: Any) -> ps1_store.Storing:
    """A rule of storing, but for what is changed."""
    names = ("blocks slots Hkv D", "T Hkv D")
    signature = ("cache_k", "cache_v", "table", "cached", "k", "v")
    rule = ps1_store.Storing(4, 5000.0, True, "all", False, 0, False, False, signature, *names)
    return replace(rule, **changes)


def test_keys_are_turned_by_the_rule_in_both_pairings() -> None:
    rng = np.random.default_rng(4)
    k, positions = rng.standard_normal((5, 2, 8)), np.arange(7, 12)
    angles = positions[:, None] * 5000.0 ** (-2 * np.arange(4) / 8)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    halves = storing().turned(k, positions)
    assert np.allclose(halves[..., :4], k[..., :4] * cos - k[..., 4:] * sin)
    pairs = storing(halves=False).turned(k, positions)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    assert np.allclose(pairs[..., order], storing().turned(k[..., order], positions))
    back = storing(backwards=True).turned(halves, positions)
    assert np.allclose(back, k)
    assert np.allclose(storing(first=2).turned(k, positions), storing().turned(k, positions + 2))
    first = storing(part="first").turned(k, positions)
    assert np.array_equal(first[..., 4:], k[..., 4:]) and not np.allclose(first[..., :4], k[..., :4])


def test_slots_are_where_the_table_says() -> None:
    table, cache = np.array([3, 1]), np.zeros((5, 4, 1, 1))
    new = np.arange(1.0, 4.0).reshape(3, 1, 1)
    stored = storing().store(cache, table, 3, new)
    assert (stored[3, 3, 0, 0], stored[1, 0, 0, 0], stored[1, 1, 0, 0]) == (1, 2, 3)
    stored = storing(reversed=True).store(cache, table, 3, new)
    assert (stored[3, 0, 0, 0], stored[1, 3, 0, 0], stored[1, 2, 0, 0]) == (1, 2, 3)


def test_the_numbers_of_ps1_are_those_of_a_run() -> None:
    """Counted again, chunk by chunk and query by query."""
    asked = set()
    for secret in secrets(20):
        question = next(q for q in key.sheet_of("PS1", secret).questions if q.name == "counts")
        n, chunk = (
            int(x.replace(",", ""))
            for x in re.search(r"of ([\d,]+) tokens is .* of ([\d,]+) \(", question.text).groups()
        )
        layers, heads, size = map(
            int, re.search(r"(\d+) layers with (\d+) .* heads of (\d+)", question.text).groups()
        )
        block = int((re.search(r"blocks of (\d+)", question.text) or [0, 1])[1])
        space: dict[str, Any] = {}
        exec(question.solution, space)
        spans = [(s, min(s + chunk, n)) for s in range(0, n, chunk)]
        position = layers * heads * size * 2 * 2
        due = {
            "passes": len(spans),
            "reread": sum(start for start, _ in spans),
            "last_pairs": sum(p + 1 for p in range(*spans[-1])),
            "pairs": sum(p + 1 for p in range(n)),
            "cache_bytes": n * position,
            "block_bytes": len({p // block for p in range(n)}) * block * position,
            "read_bytes": sum(1 for _ in range(spans[-1][0])) * position,
        }
        assert space["counts"] == {name: due[name] for name in space["counts"]}
        asked |= space["counts"].keys()
    assert asked == due.keys(), "each is asked for in some draw"


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


def hidden(secret: str) -> list[ps2_load.BoundedWorkload]:
    s = ps2_load.service(draw.stream(secret, "PS2", "shown", "service"))
    return ps2_load.loads(draw.stream(secret, "PS2", "hidden", "loads"), s)


def keeps_all(load: ps2_load.BoundedWorkload, policy: Any) -> bool:
    try:
        return all(load.kept(load.run(policy, hopeless=load.limits)).values())
    except (ps2_load.Endless, ScheduleError):
        return False


def test_no_policy_that_the_package_ships_keeps_every_promise_and_the_reference_does() -> None:
    from tqdm import tqdm

    for i, secret in enumerate(tqdm(secrets(draws(10, 50)), desc="secrets", mininterval=5)):
        fifth = slice(i % 5, None, 5)  # each with 2 secrets, in `make proof` with 10
        policies = list(shipped())[draws(fifth, fifth, slice(None))]
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

    class Careful(ps2_policy.Owed):
        def longest(self, cached, pending, left):
            return super().longest(cached, pending, 0.97 * left)

    for secret in secrets(draws(3, 10)):
        for load in hidden(secret):
            ours = load.reference()
            values = [getattr(ours, name) for name in ours.__dataclass_fields__]
            for other in (replace(ours, share=ours.share + 0.1), Careful(*values)):
                assert keeps_all(load, other), (secret, load.name, other)


TOKENS = st.integers(-5, 90) | st.booleans() | st.floats() | st.none()


@given(st.lists(st.dictionaries(st.sampled_from(["long", "short", "x", 1]), TOKENS), max_size=9))
def test_any_plan_is_marked(rows: list[Any]) -> None:
    question = key.sheet_of("PS2", secrets(1)[0]).questions[0]
    answers = type("Answers", (), {"value": lambda self, name: rows})()
    with suppress(NoAnswer):  # no row plans a token
        assert question.judge(answers).points in (0, 2, 4)  # type: ignore[misc]


# --- PS3 ----------------------------------------------------------------------------------------------


def test_the_records_say_what_the_dashboard_says() -> None:
    """Every k-th step is enough: numbers from the records are near those of the whole run."""
    for secret in secrets(3):
        rng = draw.stream(secret, "PS3", "shown", "case")
        case = ps3_case.drawn(f"{rng.getrandbits(128):032x}", rng.choice(list(clinic.FAULTS)))
        records = ps3_case.Records(case)
        assert len(records.given()) < 60_000
        for name in ("step_ms", "prompt_steps", "decodes", "cpu_step_ms", "gpu_idle"):
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
    right, level = space["report"], {}
    for name, said in re.findall(r"- `(\w+)`: .* the ([\d.]+) quantile", question.text):
        level[name] = float(said)
    assert right["step_ms"] == pytest.approx(np.quantile(gpu, level["step_ms"]), rel=1e-4)
    assert right["slow_step_ms"] == pytest.approx(np.quantile(gpu, level["slow_step_ms"]), rel=1e-4)
    assert right["cpu_step_ms"] == pytest.approx(np.quantile(cpu, level["cpu_step_ms"]), rel=1e-4)
    assert right["gpu_idle"] == pytest.approx(cpu.sum() / (cpu + gpu).sum(), rel=1e-4)
    assert right["decodes"] == pytest.approx(decodes[decodes > 0].mean(), rel=1e-4)
    assert right["prompt_tokens"] == pytest.approx(prompts[prompts > 0].mean(), rel=1e-4)


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
