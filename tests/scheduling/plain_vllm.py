"""vLLM V1's rules once more, as plainly as they can be said: a scheduler that owns and changes its requests.

An oracle for `VllmV1` on random configurations. It shares no code with the package and none of its shape:
lists, in-place changes, blocks counted anew each time.
"""

from __future__ import annotations


class R:
    def __init__(self, rid, arrival, n_prompt, n_output, priority, place):
        self.rid, self.arrival, self.priority, self.place = rid, arrival, priority, place
        self.prompt, self.most, self.out, self.computed, self.blocks = n_prompt, n_output, 0, 0, 0

    tokens = property(lambda self: self.prompt + self.out)
    rank = property(lambda self: (self.priority, self.arrival, self.place))


def record(requests, config, n_blocks, size):
    """Every step as vLLM would log it: requests are (rid, arrival step, prompt, output, priority)."""
    todo = [R(*r, place) for place, r in enumerate(requests)]
    waiting, running, steps, free = [], [], [], n_blocks
    prio = config["policy"] == "priority"
    while todo or waiting or running:
        now = len(steps)
        for r in [r for r in todo if r.arrival == now]:
            todo.remove(r)
            waiting.append(r)
        threshold = config["long_prefill_token_threshold"]
        if len(running) + len(waiting) <= 1:
            threshold = 0
        budget, given, took, preempted = config["max_num_batched_tokens"], {}, {}, []

        def ceil(n):
            return -(-n // size)

        i = 0
        while i < len(running) and budget > 0:
            r = running[i]
            n = r.tokens - r.computed
            if threshold and n > threshold:
                n = threshold
            n = min(n, budget, config["max_model_len"] - r.computed - 1)
            if n == 0:
                i += 1
                continue
            lost = False
            while ceil(r.computed + n) - r.blocks > free:
                victim = max(running, key=lambda v: v.rank) if prio else running[-1]
                at = running.index(victim)
                del running[at]
                if victim.rid in given:
                    budget += given.pop(victim.rid)
                    took.pop(victim.rid)
                    i -= 1
                free += victim.blocks
                victim.blocks = victim.computed = 0
                preempted.append(victim.rid)
                waiting.insert(0, victim)
                if victim is r:
                    lost = True
                    break
            if lost:
                continue
            more = ceil(r.computed + n) - r.blocks
            free, r.blocks = free - more, r.blocks + more
            given[r.rid], took[r.rid] = n, more
            budget -= n
            i += 1

        while not preempted and waiting and budget > 0 and len(running) < config["max_num_seqs"]:
            r = min(waiting, key=lambda v: v.rank) if prio else waiting[0]
            n = r.tokens
            if threshold and n > threshold:
                n = threshold
            if not config["enable_chunked_prefill"] and n > budget:
                break
            n = min(n, budget)
            gate = ceil(r.tokens if config["scheduler_reserve_full_isl"] else n)
            if running:
                gate += int(config["watermark"] * (n_blocks + 1))
            if gate > free:
                break
            waiting.remove(r)
            running.append(r)
            r.blocks = ceil(n)
            free -= r.blocks
            given[r.rid] = n
            budget -= n

        step = {
            **{"scheduled": list(given.items()), "preempted": preempted, "sampled": [], "finished": []},
            **{"num_running": len(running), "num_waiting": len(waiting), "free_blocks": free},
        }
        for r in list(running):
            r.computed += given.get(r.rid, 0)
            if r.rid in given and r.computed == r.tokens:
                r.out += 1
                step["sampled"].append(r.rid)
                if r.out == r.most or r.tokens >= config["max_model_len"]:
                    step["finished"].append(r.rid)
                    running.remove(r)
                    free += r.blocks
        steps.append(step)
        assert given or preempted or not (waiting or running), "stuck"
    return steps
