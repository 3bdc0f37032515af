"""A few steps under torch.profiler, as a small chrome trace: parts, operators, the GPU where there is one."""

from __future__ import annotations

import sys

from benchmarks.runner import options, positive, provenance_of, write
from chunkprefill.profiling import profile_steps


def main(argv: list[str] | None = None) -> int:
    parser = options("profile", __doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=3, help="2 or more (default: %(default)s)")
    args = parser.parse_args(argv)
    document = profile_steps(n_steps=args.steps, device=args.device)
    where = provenance_of(args)
    write({"provenance": where, **document}, args.out)
    n = len(document["traceEvents"])
    print(f"{n} events; open it in a viewer of chrome traces", file=sys.stderr)
    return 0
