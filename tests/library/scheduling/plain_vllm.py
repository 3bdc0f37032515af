"""vLLM V1's rules once more, as plainly as they can be said: a scheduler that owns and changes its requests.

An oracle for `VllmV1`, prefix caching and asynchronous scheduling on random configurations. It shares no code
with the package and none of its shape: token lists, block objects, in-place changes, prefixes compared whole.
"""

from __future__ import annotations


class Block:
    def __init__(self):
        self.holders, self.prefix = 0, None  # all tokens up to its end, once it counts as cached


class Asked:
    def __init__(self, rid, arrival, prompt, n_output, priority, place):
        self.rid, self.arrival, self.priority, self.place = rid, arrival, priority, place
        self.tokens = [*prompt]  # those whose value is known
        self.most = len(prompt) + n_output
        self.on_their_way = 0
        self.computed, self.blocks, self.n_cached_blocks = 0, [], 0

    known = property(lambda self: len(self.tokens) + self.on_their_way)
    rank = property(lambda self: (self.priority, self.arrival, self.place))


class Memory:
    def __init__(self, n_blocks, size, caching):
        self.size, self.caching = size, caching
        self.free = [Block() for _ in range(n_blocks)]  # the first goes first
        self.cached = []  # blocks with a prefix, in the order in which they got it

    def hits(self, r):
        found = []
        while self.caching and (len(found) + 1) * self.size < len(r.tokens):
            prefix = r.tokens[: (len(found) + 1) * self.size]
            same = [b for b in self.cached if b.prefix == prefix]
            if not same:
                break
            found.append(same[0])
        return found

    def missing(self, r, end, hits=()):
        new = max(0, -(-end // self.size) - len(r.blocks) - len(hits))
        return new + sum(b.holders == 0 for b in hits)

    def adopt(self, r, hits):
        for b in hits:
            if b.holders == 0:
                self.free.remove(b)
            b.holders += 1
        r.blocks, r.n_cached_blocks, r.computed = [*hits], len(hits), len(hits) * self.size

    def grow(self, r, end):
        while len(r.blocks) * self.size < end:
            b = self.free.pop(0)
            if b.prefix is not None:
                self.cached.remove(b)
                b.prefix = None
            b.holders = 1
            r.blocks.append(b)
        self.cache(r, end)

    def cache(self, r, n):
        while self.caching and (r.n_cached_blocks + 1) * self.size <= min(n, len(r.tokens)):
            b = r.blocks[r.n_cached_blocks]
            r.n_cached_blocks += 1
            b.prefix = r.tokens[: r.n_cached_blocks * self.size]
            self.cached.append(b)

    def release(self, r):
        for b in r.blocks:
            b.holders -= 1
        loose = [b for b in reversed(r.blocks) if b.holders == 0]
        self.free = [b for b in loose if b.prefix is None] + self.free
        self.free += [b for b in loose if b.prefix is not None]
        r.blocks, r.n_cached_blocks, r.computed = [], 0, 0


def record(requests, config, n_blocks, size):
    """Every step as vLLM would log it: requests are (rid, arrival step, prompt tokens, n_output, priority)."""
    todo = [Asked(*r, place) for place, r in enumerate(requests)]
    caching, late = config.get("prefix_caching", False), config.get("async_scheduling", False)
    memory = Memory(n_blocks, size, caching)
    waiting, running, steps, in_flight = [], [], [], None
    prio = config["policy"] == "priority"
    longest = config["max_model_len"]

    def land(batch, log, scheduled_since):
        for r, emits, _ in batch:
            if not emits:
                continue
            r.tokens.append(("out", r.rid, len(r.tokens)))
            r.on_their_way = max(0, r.on_their_way - 1)
            log["sampled"].append(r.rid)
            if r in running:
                memory.cache(r, r.computed - scheduled_since.get(r.rid, 0))
            if len(r.tokens) >= min(r.most, longest):
                log["finished"].append(r.rid)
                (running if r in running else waiting).remove(r)
                memory.release(r)

    while todo or waiting or running:
        now = len(steps)
        for r in [r for r in todo if r.arrival == now]:
            todo.remove(r)
            waiting.append(r)
        threshold = config["long_prefill_token_threshold"]
        if len(running) + len(waiting) <= 1:
            threshold = 0
        budget, given, preempted, hits_of = config["max_num_batched_tokens"], {}, [], {}

        i = 0
        while i < len(running) and budget > 0:
            r = running[i]
            n = r.known - r.computed
            if threshold and n > threshold:
                n = threshold
            n = min(n, budget, longest - r.computed - 1)
            if r.on_their_way and r.known >= r.most:
                n = 0  # its last token is on its way
            if n == 0:
                i += 1
                continue
            lost = False
            while memory.missing(r, r.computed + n) > len(memory.free):
                victim = max(running, key=lambda v: v.rank) if prio else running[-1]
                at = running.index(victim)
                del running[at]
                if victim.rid in given:
                    budget += given.pop(victim.rid)
                    i -= 1
                memory.release(victim)
                victim.on_their_way = 0
                preempted.append(victim.rid)
                waiting.insert(0, victim)
                if victim is r:
                    lost = True
                    break
            if lost:
                continue
            memory.grow(r, r.computed + n)
            given[r.rid] = n
            budget -= n
            i += 1

        while not preempted and waiting and budget > 0 and len(running) < config["max_num_seqs"]:
            r = min(waiting, key=lambda v: v.rank) if prio else waiting[0]
            hits = memory.hits(r)
            start = len(hits) * size
            n = len(r.tokens) - start
            if threshold and n > threshold:
                n = threshold
            if not config["enable_chunked_prefill"] and n > budget:
                break
            n = min(n, budget)
            gate = memory.missing(
                r, len(r.tokens) if config["scheduler_reserve_full_isl"] else start + n, hits
            )
            if running:
                gate += int(config["watermark"] * (n_blocks + 1))
            if gate > len(memory.free):
                break
            waiting.remove(r)
            running.append(r)
            memory.adopt(r, hits)
            memory.grow(r, start + n)
            hits_of[r.rid] = start
            given[r.rid] = n
            budget -= n

        log = {
            "scheduled": list(given.items()),
            "preempted": preempted,
            "sampled": [],
            "finished": [],
            "num_running": len(running),
            "num_waiting": len(waiting),
            "free_blocks": len(memory.free),
        }
        if caching:
            log["hits"] = hits_of
        batch = []
        for r in running:
            if r.rid in given:
                r.computed += given[r.rid]
                emits = r.computed == r.known
                r.on_their_way += emits
                batch.append((r, emits, given[r.rid]))
        batch.sort(key=lambda row: list(given).index(row[0].rid))
        if not late:
            land(batch, log, {})
        else:
            if in_flight:
                land(in_flight, log, given)
            in_flight = batch
        steps.append(log)
        assert given or preempted or late or not (waiting or running), "stuck"
        assert len(steps) < 5000, "stuck"
    return steps
