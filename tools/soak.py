"""Twenty rounds, on a busy machine, of the tests that draw at random, drive a browser or start processes.

    python tools/soak.py [--rounds 20] [--sessions 5] [--busy 4] [-- further arguments of pytest]

A test that passes only when the machine is quiet and the seed is kind does not pass. Four processes keep the
processors busy meanwhile, and Hypothesis draws anew in each round. The rounds are shared out among a few fresh
sessions of pytest beside each other, because a session takes long to begin. `tests/conftest.py` says which tests
each round repeats, and which are shared out among the rounds because they take too long.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Keep `n` processes computing; each ends by itself where this one dies."""
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(n)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--sessions", type=int, default=5, help="fresh processes (default: %(default)s)")
    parser.add_argument(
        "--busy", type=int, default=4, help="processes that compute meanwhile (default: %(default)s)"
    )
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest, after --")
    args = parser.parse_args(argv)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args.pytest]
    n = min(args.sessions, args.rounds)
    shares = [range(k, args.rounds, n) for k in range(n)]
    begun = time.monotonic()

    def session(rounds: range) -> bool:
        env = {
            **os.environ,
            "TESTS_PROFILE": "soak",
            "TESTS_ROUNDS": ",".join(map(str, rounds)),
            "TESTS_OF_ROUNDS": str(args.rounds),
        }
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        told = f"{len(rounds)} rounds: {last}"
        if done.returncode:
            told += f"\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
        print(told, flush=True)
        return done.returncode == 0

    with busy(args.busy), ThreadPoolExecutor(n) as pool:
        failed = list(pool.map(session, shares)).count(False)
    minutes = (time.monotonic() - begun) / 60
    print(f"{args.rounds} rounds in {minutes:.1f} min, {failed} of {n} sessions failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
