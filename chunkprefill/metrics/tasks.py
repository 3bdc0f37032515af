"""What a scheduler had to keep track of in a run: visits, mixed batches, choices, half-built caches."""

from __future__ import annotations

from dataclasses import dataclass, fields

from chunkprefill.scheduling.core import Rid
from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import needed, whole_number


@dataclass(frozen=True)
class Tasks:
    """Counted in one run; `tasks` makes it.

    A visit is one request in one step; it is a chunk if it begins inside the prompt. A cache is half-built
    from the end of its first chunk to the end of its last: a prompt that runs in one step never leaves one
    behind. What is computed again after an eviction counts as chunks too.
    """

    n_steps: int
    chunks: int  # visits that run tokens of a prompt
    decodes: int  # visits that run a token of an answer
    mixed: int  # steps that hold both
    choices: int  # prompts that were there and not done, once for each step: whom to admit, and how much
    half_built: int  # the most caches that were half-built at once
    block_s: float  # blocks held by half-built caches, times the seconds for which they were

    @property
    def visits(self) -> int:
        """All of them."""
        return self.chunks + self.decodes

    def as_dict(self) -> dict[str, float]:
        """Plain numbers by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"visits": self.visits}


def tasks(trace: Trace, *, block_size: int = 16) -> Tasks:
    """Count a run's tasks from its steps. block_size: tokens in a block."""
    needed("trace", trace, Trace, "such as simulate returns")
    block_size = whole_number("block_size", block_size, 1)
    n_prompt = {request.rid: request.n_prompt for request in trace.requests}
    ahead = sorted(trace.requests, key=lambda request: request.arrival, reverse=True)
    undone: set[Rid] = set()  # arrived, prompt not done
    cached: dict[Rid, int] = {}  # of those among them that have begun
    chunks = decodes = mixed = choices = most = 0
    block_s = ended = 0.0  # block-seconds; s
    for step in trace.steps:
        while ahead and ahead[-1].arrival <= step.scheduled:
            undone.add(ahead.pop().rid)
        for rid in step.batch.preempted:
            cached.pop(rid, None)
            undone.add(rid)
        choices += len(undone)
        held = sum(-(-n // block_size) for n in cached.values())
        block_s += held * (step.end - ended)  # no prompt is half-built while the server is idle
        ended = step.end
        n_chunks = 0
        for rid, start, length, _ in step.batch:
            if start < n_prompt[rid]:
                n_chunks += 1
                undone.add(rid)
                cached[rid] = start + length
                if start + length >= n_prompt[rid]:
                    undone.discard(rid)
                    del cached[rid]
        chunks, decodes = chunks + n_chunks, decodes + len(step.batch) - n_chunks
        mixed += 0 < n_chunks < len(step.batch)
        most = max(most, len(cached))
    return Tasks(len(trace.steps), chunks, decodes, mixed, choices, most, block_s)
