"""Problem sets, drawn from a secret: what to hand out, what to mark by. `new` writes one."""
