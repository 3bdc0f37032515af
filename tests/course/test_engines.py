"""Chapter 8's evidence, its table of settings, its pictures, and the bench that talks to vLLM."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill.scheduling import parity
from chunkprefill_course import real_engines
from chunkprefill_course.evidence import beyond
from chunkprefill_course.evidence import engines as evidence
from tests.needs import ROOT
from tests.proof import left_to_proof

# --- the table of settings --------------------------------------------------------------------------


@pytest.mark.parametrize("one", real_engines.settings(), ids=lambda one: f"{one.engine}: {one.idea}")
def test_each_cell_has_a_name_a_default_a_version_and_a_source(one):
    for value in (one.name, one.default, one.version, one.source):
        assert value.strip() == value and value
    assert one.source != real_engines.NOT_FOUND, "where was it looked for?"
    assert (one.name == real_engines.NOT_FOUND) == (one.default == real_engines.NOT_FOUND)


def test_every_idea_is_looked_up_in_every_engine_and_every_cell_is_shown_with_its_source():
    ideas = list(dict.fromkeys(one.idea for one in real_engines.settings()))
    sources = {row[0]: row for row in real_engines.sources_table().rows}
    for name in real_engines.engine_names():
        rows = course.settings_table(name).rows
        assert [row[0] for row in rows] == ideas
        for row in rows:
            (one,) = (s for s in real_engines.settings() if (s.engine, s.idea) == (name, row[0]))
            assert row[1:3] == (one.name, one.default)
            assert sources[row[3]][1:] == (name, one.version, one.source)
    assert len(sources) == len(real_engines.settings()) and {"vLLM", "SGLang", "TensorRT-LLM"} <= set(
        real_engines.engine_names()
    )
    with pytest.raises(ValueError, match="no settings of 'Orca'; there are those of vLLM"):
        course.settings_table("Orca")


def test_what_the_table_says_of_vllm_is_what_our_policy_is_called():
    """The names in the table are arguments of `VllmV1`, with the defaults that the table gives."""
    fields = cp.VllmV1.__dataclass_fields__
    told = {
        one.name.split(",")[0].split(":")[0]: one for one in real_engines.settings() if one.engine == "vLLM"
    }
    for name in (
        "max_num_batched_tokens",
        "long_prefill_token_threshold",
        "enable_chunked_prefill",
        "scheduler_reserve_full_isl",
    ):
        assert name in told and name in fields
    assert fields["long_prefill_token_threshold"].default == 0
    assert fields["enable_chunked_prefill"].default and fields["scheduler_reserve_full_isl"].default


# --- recorded decisions -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", evidence.recordings())
def test_the_recordings_that_travel_with_the_package_are_those_of_the_tests(name):
    path = ROOT / f"tests/data/parity/{name}.json"
    (original,) = parity.load(str(path))
    copied = evidence.recordings()[name]
    assert (copied.requests, copied.policy, copied.steps) == (
        original.requests,
        original.policy,
        original.steps,
    )
    assert (copied.pool.n_blocks, copied.pool.block_size) == (
        original.pool.n_blocks,
        original.pool.block_size,
    )
    assert all(evidence.equal_steps(original))
    raw = json.loads((ROOT / "chunkprefill_course/evidence/recorded.json").read_text())["cases"]
    assert all(case["provenance"]["version"] == "0.33.0" for case in raw)


@given(st.sampled_from(sorted(evidence.recordings())), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_a_changed_decision_is_counted_and_drawn(name, dice):
    case = evidence.recordings()[name]
    busy = [i for i, step in enumerate(case.steps) if step["scheduled"]]
    at = dice.choice(busy)
    steps = [dict(step) for step in case.steps]
    rows = steps[at]["scheduled"] = list(steps[at]["scheduled"])
    k = dice.randrange(len(rows))
    rows[k] = (rows[k][0], rows[k][1] + 1)
    changed = replace(case, steps=steps)
    equal = evidence.equal_steps(changed)
    assert [i for i, same in enumerate(equal) if not same] == [at]
    picture = course.decisions_picture(changed, evidence.replayed(changed), caption="changed")
    assert f"{len(equal) - 1} of {len(equal)} steps are equal" in picture.alt
    assert [row[3] for row in picture.table.rows] == ["yes" if same else "no" for same in equal]


def test_the_first_difference_between_two_runs():
    requests = [cp.Request("a", 0, 4, 3), cp.Request("b", 1, 9, 2)]
    policies = (cp.ChunkedPrefill(4), cp.PrefillFirst(4, chunk=4), cp.ChunkedPrefill(4))
    runs = [cp.simulate(requests, policy, lambda batch: 1.0) for policy in policies]
    assert evidence.first_difference(runs[0], runs[1]) == 1
    assert evidence.first_difference(runs[0], runs[2]) is None


def test_every_proposal_at_the_moment_keeps_the_contract():
    first = cp.PrefillFirst
    policies = {
        "a": cp.VllmV1(512),
        "b": first(8192),
        "c": first(8192, mixed=True),
        "d": first(512, chunk=512),
        "e": cp.Alternate(512),
        "f": cp.ChunkedPrefill(512),
    }
    plans = evidence.proposals(policies)
    for plan in plans.values():
        assert len(evidence.moment().apply(plan)) == len(plan.tokens)
    assert plans["a"] == plans["f"] and plans["d"] == plans["e"] and plans["b"] != plans["c"]
    assert plans["b"].tokens == {"document": 4096, "chat 3": 64}


# --- claims -----------------------------------------------------------------------------------------

CLAIMS = [
    evidence.same_decisions,
    evidence.threshold_passes,
    evidence.token_a_step,
    evidence.first_chunk_only,
    evidence.always_a_prompt,
    beyond.prefix_passes,
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda f: f.__name__)
def test_each_claim_holds_under_its_conditions_and_not_without_one(claim):
    both = course.evidence.both_sides(claim)
    assert both.sound, str(both)
    assert both.claimed.claim == claim.__name__.replace("_", "-")


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(8, 128),
    threshold=st.integers(1, 160),
    n_long=st.integers(400, 2000),
    n_short=st.integers(1, 40),
    n_decodes=st.integers(0, 4),
)
def test_a_newcomer_is_let_in_by_what_the_threshold_leaves(budget, threshold, n_long, n_short, n_decodes):
    """Counted in steps: with room beside the cap it has its first token after its own share of steps."""
    requests = [cp.Request(f"chat {i}", 0, 1, 1000) for i in range(n_decodes)]
    requests += [cp.Request("long", 1, n_long, 2), cp.Request("short", 2, n_short, 2)]
    policy = cp.VllmV1(budget, max_num_seqs=8, long_prefill_token_threshold=threshold)
    trace = cp.simulate(requests, policy, lambda batch: 1.0)
    waited = cp.request_timelines(trace)["short"].first_token
    room = min(budget - n_decodes - threshold, threshold)  # the cap holds for the newcomer too
    done = cp.request_timelines(trace)["long"].tokens[0] - 2
    if room >= 1:
        assert waited <= -(-n_short // room) + 1
    elif budget - n_decodes <= threshold:
        assert waited >= done, "nothing was left, and still it was let in"


@pytest.mark.parametrize("policy", [cp.ChunkedPrefill(8192), cp.Alternate(8192)])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_other_rule_starves_the_same_stream(policy, seed):
    assert evidence.stream_of_prompts(policy, n=300, seed=seed).left_out <= 1
    first = evidence.stream_of_prompts(cp.PrefillFirst(16_384, chunk=8192), n=300, seed=seed)
    assert first.left_out > 3 and first.silence > 10


@pytest.mark.parametrize("budget", [128, 512, 2048])
def test_a_decode_gets_a_token_for_each_step_of_the_prompt(budget):
    found = evidence.beside_a_prompt(budget, n_prompt=20_000)
    assert found.n_beside == found.n_steps == -(-20_000 // (budget - 1))


def test_a_smaller_budget_trades_the_prompt_for_the_decode():
    found = [evidence.beside_a_prompt(budget, n_prompt=20_000) for budget in (128, 512, 2048)]
    assert sorted((f.beside for f in found), reverse=True) == [f.beside for f in found]
    assert sorted((f.prompt for f in found), reverse=True) == [f.prompt for f in found]


@pytest.mark.parametrize("seed", [1, 2])
def test_admission_by_the_whole_prompt_evicts_less_and_a_margin_less_still(seed):
    rules = ({"scheduler_reserve_full_isl": False}, {}, {"watermark": 0.1})
    told = [evidence.let_in(n=150, seed=seed, **rule) for rule in rules]
    assert told[0].preemptions > 3 * told[1].preemptions > 3 * told[2].preemptions
    assert told[0].recomputed_tokens > told[1].recomputed_tokens > told[2].recomputed_tokens


def test_cutting_does_not_speed_up_a_job_without_an_audience():
    whole, cut = (evidence.job(p, n=8) for p in (cp.PrefillFirst(65_536), cp.ChunkedPrefill(512)))
    assert cut < whole


# --- a prefix that is cached ------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.integers(1, 40), st.data())
def test_what_is_left_behind_a_prefix_is_priced_as_the_end_of_the_whole_prompt(n, chunk, data):
    """Pairs of the whole prompt, chunk by chunk, less those of its prefix: exactly what is left."""
    cached = data.draw(st.integers(0, n - 1))

    def pairs(batch):
        return float(batch.totals().pairs)

    whole = sum(pairs(beyond.mixed(chunk=1, start=i)) for i in range(n))
    before = sum(pairs(beyond.mixed(chunk=1, start=i)) for i in range(cached))
    assert beyond.prompt_seconds(pairs, n, cached=cached, chunk=chunk) == whole - before
    served = cp.simulate(
        [cp.Request("x", 0, n - cached, 1)],
        cp.ChunkedPrefill(chunk),
        beyond.after_prefix(pairs, {"x": cached}),
    )
    assert served.steps[-1].end == pytest.approx(whole - before)


def test_a_first_token_is_early_and_a_decode_late_where_each_has_a_card():
    """The same requests: where decodes have a card of their own, no chunk makes their steps longer."""
    for rate in (2, 6):
        together, apart = beyond.together(2048, rate / 2), beyond.apart(rate)
        assert apart[1] < together[1]
    assert beyond.carried(lambda rate: (rate, 0.0), (3.0, 1.0), rates=range(1, 9)) == 3
    assert beyond.carried(lambda rate: (9.0, 0.0), (3.0, 1.0), rates=range(1, 9)) == 0


@left_to_proof("test_ledger proves it at its own seed")
def test_two_cards_part_under_a_tight_bound_and_not_under_a_loose_one_whatever_comes():
    assert course.evidence.both_sides(beyond.no_budget, seed=2).sound


# --- vLLM, or something that answers like it ----------------------------------------------------------


class FakeEngine:
    """Answers like vLLM's AsyncLLM: a token every millisecond, stamped on a clock of its own."""

    def __init__(self, *, merge=1, stats=True, short=0):
        self.merge, self.stats, self.short, self.asked, self.closed = merge, stats, short, [], False

    @classmethod
    def from_engine_args(cls, arguments):
        cls.last = arguments.make()
        cls.last.arguments = arguments.given
        return cls.last

    async def generate(self, prompt, params, request_id, *, priority=0):
        self.asked.append((request_id, time.monotonic(), len(prompt["prompt_token_ids"]), params, priority))
        stats = SimpleNamespace(queued_ts=1e6, last_token_ts=1e6) if self.stats else None
        left = params.max_tokens - self.short
        while left > 0:
            n = min(self.merge, left)
            await asyncio.sleep(0.001)
            if stats:
                stats.last_token_ts += 0.010 * n
            yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[1] * n)], metrics=stats)
            left -= n

    def shutdown(self):
        self.closed = True


@pytest.fixture
def fake(monkeypatch):
    """A module named vllm, and a GPU; `fake(merge=2)` makes its engine merge tokens."""

    def install(**how):
        module, sampling = ModuleType("vllm"), ModuleType("vllm.sampling_params")

        class Arguments:
            def __init__(self, **given):
                self.given = given

            def make(self):
                return FakeEngine(**how)

        module.__version__, module.__path__ = "9.9", []
        module.AsyncEngineArgs, module.AsyncLLMEngine = Arguments, FakeEngine
        module.SamplingParams = SimpleNamespace
        sampling.RequestOutputKind = SimpleNamespace(DELTA=1)
        module.__spec__ = SimpleNamespace(name="vllm")
        monkeypatch.setitem(sys.modules, "vllm", module)
        monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "a card")

    return install


REQUESTS = [cp.Request("late", 0.08, 30, 4), cp.Request("early", 0.0, 7, 3, priority=2)]


def test_vllm_is_asked_at_the_right_moments_and_its_stamps_are_kept_apart_from_our_clock(fake):
    fake()
    run = cp.on_vllm(REQUESTS, budget=64, threshold=16, policy="priority")
    engine = FakeEngine.last
    assert engine.closed and run.version == "9.9" and run.device == "a card" and run.n_merged == 0
    asked = {name: (when, n, params, priority) for name, when, n, params, priority in engine.asked}
    assert list(asked) == ["warm-up", "early", "late"]
    assert asked["late"][0] - asked["warm-up"][0] >= 0.08, "no request is asked before its arrival"
    assert asked["early"][1] == 7 and asked["early"][3] == 2 and asked["late"][1] == 30
    assert asked["late"][2].max_tokens == 4 and asked["late"][2].ignore_eos
    given = engine.arguments
    assert given["max_num_batched_tokens"] == given["max_num_seqs"] == 64
    assert given["long_prefill_token_threshold"] == 16 and given["enable_prefix_caching"] is False
    assert run.ttft() == pytest.approx([0.01, 0.01]) and run.tbt() == pytest.approx([0.01] * 5)
    assert [len(one.tokens) for one in run.served] == [3, 4]
    assert all("≈" in cell for row in run.table().rows for cell in row[1:])


def test_tokens_that_came_together_are_counted(fake):
    fake(merge=2)
    run = cp.on_vllm(REQUESTS)
    assert run.n_merged == 3 and sorted(run.tbt())[:3] == [0, 0, 0]


@pytest.mark.parametrize(
    ("how", "words"),
    [({"stats": False}, "no timestamps"), ({"short": 1}, "1 tokens came, 2 were asked")],
)
def test_an_engine_that_answers_otherwise_is_an_error_and_is_shut_down(fake, how, words):
    fake(**how)
    with pytest.raises(RuntimeError, match=words):
        cp.on_vllm(REQUESTS)
    assert FakeEngine.last.closed


def test_without_vllm_or_a_gpu_it_says_so_and_runs_nothing(fake, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "vLLM is not installed" in str(cp.on_vllm(REQUESTS))
    monkeypatch.undo()
    fake()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in repr(cp.on_vllm(REQUESTS))
