"""The course's own policy for PS2: its runs are the measure. What students write is `decide`, elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chunkprefill.scheduling.core import Plan


@dataclass(frozen=True)
class Owed:
    """Every decode first; chunks as long as the bound allows where they stand; a share kept for documents."""

    machine: Any  # base, decode, price(cached, n): s
    bound: float  # s, on the time between tokens
    chat: int  # prompt tokens of a chat at most
    share: float  # of what the decodes leave, owed to documents

    def schedule(self, state: Any) -> Plan:
        """What is left of the bound is time, not tokens: it buys fewer of them behind a long prefix."""
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.bound - self.machine.base - self.machine.decode * len(tokens)  # s
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
            left -= self.machine.price(seq.cached, n)
        return left

    def longest(self, cached: int, pending: int, left: float) -> int:
        """The longest chunk that fits, by halving."""
        low, high = 0, pending
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.machine.price(cached, middle) <= left
            low, high = (middle, high) if fits else (low, middle - 1)
        return low
