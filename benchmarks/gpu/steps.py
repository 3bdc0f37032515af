"""Sections on one step of a server: chunks beside decodes, decodes alone, what riding along saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.gpu.lab import MODELS, JsonRow, Lab, in_groups, median, say
from benchmarks.gpu.roofline import SequencePart, operators, pass_bytes, roofline

Load = tuple[int, int, int, int]  # chunk, cached before it, decodes, context of each


def mixed(lab: Lab) -> Iterator[JsonRow]:
    """A chunk beside decodes, by the size of the chunk, the number of decodes and their context."""
    loads = lab.pick(
        tiny=[(16, 0, 3, 20)],
        smoke=[(512, 0, 64, 2048)],
        full=[
            (512, 0, 64, 2048),
            (512, 4096, 64, 2048),
            *(
                (chunk, 0, n, context)
                for context in (2048, 128)
                for n in (8, 64)
                for chunk in (128, 512, 2048)
                if (chunk, n, context) != (512, 64, 2048)
            ),
            (512, 0, 16, 8192),
            (512, 16_384, 8, 2048),
        ],
    )
    yield from step_rows(lab, loads)


def decodes(lab: Lab) -> Iterator[JsonRow]:
    """Steps of decodes alone, by number and context, beside the bandwidth of a copy."""
    loads = lab.pick(
        tiny=[(0, 0, 3, 20)],
        smoke=[(0, 0, 64, 2048)],
        full=[
            (0, 0, n, context)
            for n, context in ((64, 2048), (1, 2048), (8, 128), (8, 2048), (64, 128), (16, 8192), (256, 128))
        ],
    )
    yield from step_rows(lab, loads)


def step_rows(lab: Lab, loads: Sequence[Load]) -> Iterator[JsonRow]:
    """A row for each load on the largest model, on a smaller one if there is time; a few interleaved at once.

    The first load is measured with its cache blocks scattered too: what lies in runs is read where it is.
    Decodes alone are played back from CUDA graphs too, where that can be.
    """
    plain = {"scattered": False, "graphs": False}
    for name in lab.pick(tiny=lab.names(), smoke=[lab.main], full=[lab.main, *lab.names()[-2:-1]]):
        cases = [(loads[0], plain | {"scattered": True}), *((load, plain) for load in loads)]
        if why := why_no_graphs(lab, name):
            say(f"no CUDA graphs: {why}")
        else:
            cases += [(load, plain | {"graphs": True}) for load in loads if not load[0]]
        for group in in_groups(cases, 5):
            if lab.late(f"{name} from {group[0][0]}"):
                return
            work = {i: lab.step(name, rows_of(load), **how) for i, (load, how) in enumerate(group)}
            samples = lab.rounds(work, lab.pick(tiny=2, smoke=5, full=10), warm=2)
            for i, (load, how) in enumerate(group):
                row = step_row(lab, name, load, samples[i])
                blocks = "scattered" if how["scattered"] else "in runs"
                yield row | {"blocks": blocks, "graphs": how["graphs"]}


def why_no_graphs(lab: Lab, name: str) -> str:
    """Why a step cannot be played back from a CUDA graph; empty where it can."""
    try:
        lab.step(name, [SequencePart(1, 1)], graphs=True)()
    except (ValueError, RuntimeError) as error:
        return str(error)[:300]
    return ""


def rows_of(load: Load) -> list[SequencePart]:
    """The sequences of a step; the chunk is no prompt's last, so it makes no token."""
    chunk, before, n_decodes, context = load
    first = [SequencePart(before, chunk, False)] if chunk else []
    return first + [SequencePart(context, 1)] * n_decodes


def step_row(lab: Lab, name: str, load: Load, samples: Sequence[tuple[float, float]]) -> JsonRow:
    chunk, before, n_decodes, context = load
    rows, config = rows_of(load), MODELS[name]
    passes, steps = ([pair[i] for pair in samples] for i in (0, 1))
    s, least = median(passes), roofline(config, rows, lab.top)
    row: JsonRow = {
        **{"model": name, "chunk": chunk, "cached": before, "decodes": n_decodes, "context": context},
        **{"s": s, "step_s": median(steps), "roofline_s": least, "over_roofline": s / least},
        "operators_s": operators(config, rows, lab.top),
    }
    if not chunk:
        n_bytes = pass_bytes(config, rows, lab.dtype.itemsize)
        row |= {"bytes": n_bytes, "fraction_of_copy": n_bytes / s / lab.top.copy}
    return row | {"samples_s": passes, "step_samples_s": steps}


def piggyback(lab: Lab) -> Iterator[JsonRow]:
    """What decodes cost alone, over what they add to a step that has a chunk: above 1, sharing saves.

    Both signs: short contexts, where the decodes' price is reading weights, which the chunk does anyhow; long
    ones, where it is reading their own caches, which are shared with none.
    """
    loads = lab.pick(
        tiny=[(16, 0, 3, 20)],
        smoke=[(256, 0, 16, 128)],
        full=[
            *((chunk, 0, 16, 128) for chunk in (64, 128, 256, 512)),
            *((chunk, 0, 64, 2048) for chunk in (64, 256, 512)),
            *((chunk, 0, 16, 8192) for chunk in (64, 256, 512)),
        ],
    )
    name = lab.main
    for group in in_groups(loads, 4):
        if lab.late(f"from {group[0]}"):
            return
        parts = [part for c, p, n, k in group for part in ((c, p, n, k), (c, p, 0, 0), (0, 0, n, k))]
        work = {part: lab.step(name, rows_of(part)) for part in dict.fromkeys(parts)}
        samples = lab.rounds(work, lab.pick(tiny=2, smoke=5, full=10), warm=2)
        took = {part: median([pair[0] for pair in samples[part]]) for part in work}
        for c, p, n, k in group:
            both, chunk, alone = took[c, p, n, k], took[c, p, 0, 0], took[0, 0, n, k]
            more = both - chunk
            yield {
                **{"model": name, "chunk": c, "decodes": n, "context": k, "both_s": both, "chunk_s": chunk},
                **{"decodes_s": alone, "added_s": more, "saves": alone / more if more > 0 else None},
                "one_step_instead_of_two": 1 - both / (chunk + alone),
                "samples_s": {
                    "both": [pair[0] for pair in samples[c, p, n, k]],
                    "chunk": [pair[0] for pair in samples[c, p, 0, 0]],
                    "decodes": [pair[0] for pair in samples[0, 0, n, k]],
                },
            }
