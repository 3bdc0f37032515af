"""The course's own answer to PS2's policy: its source is the solution's cell, its runs are the measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chunkprefill.scheduling.core import Plan


@dataclass(frozen=True)
class Owed:
    """Every decode first; chunks as long as the bound allows where they stand; a share kept for documents."""

    bound: float  # s, on the time between tokens
    base: float
    token: float
    pair: float
    decode: float
    chat: int  # prompt tokens of a chat at most
    share: float  # of what the decodes leave, owed to documents

    def schedule(self, state: Any) -> Plan:
        """What is left of the bound is time, not tokens: it buys fewer of them behind a long prefix."""
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.bound - self.base - self.decode * len(tokens)  # s
        prompts = [seq for seq in (*state.running, *state.waiting) if not seq.decoding]
        prompts.sort(key=lambda seq: seq.arrival)
        documents = [seq for seq in prompts if seq.n_prompt > self.chat]
        kept = self.share * left if documents else 0.0
        chats = [seq for seq in prompts if seq.n_prompt <= self.chat]
        rest = self.give(chats, left - kept, tokens)
        self.give(documents, rest + kept, tokens)
        return Plan(tokens)

    def give(self, seqs: Any, left: float, tokens: dict[Any, int]) -> float:
        """Spend `left` seconds on these prompts in order; returns what remains."""
        for seq in seqs:
            n = self.longest(seq.cached, seq.pending, left)
            if n < 1:
                break
            tokens[seq.rid] = n
            left -= self.price(seq.cached, n)
        return left

    def price(self, cached: int, n: int) -> float:
        """Seconds that a chunk of n tokens behind a prefix adds to a step."""
        return self.token * n + self.pair * n * (cached + n / 2)

    def longest(self, cached: int, pending: int, left: float) -> int:
        """The longest chunk that fits, by halving."""
        low, high = 0, pending
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.price(cached, middle) <= left else (low, middle - 1)
        return low
