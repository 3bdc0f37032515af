"""Twenty rounds, on a busy machine, of what draws or races, and once of all that drives a browser or a sandbox.

    python tools/soak.py [--rounds 20] [--sessions 6] [--busy 4] [-- further arguments of pytest]

A test that passes only when the machine is quiet and the seed is kind does not pass. Four processes keep the
processors busy meanwhile, and Hypothesis draws anew in each round. The rounds are shared out among a few fresh
sessions of pytest beside each other, because a session takes long to begin. `tests/conftest.py` says which tests
each round repeats, and which are shared out among the rounds because they take too long.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS = 5  # what pytest exits with where nothing was selected
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


def how_many(log: Path) -> int:
    """How many tests a session of pytest has run: its percentages count a test that is repeated once."""
    said = log.read_text(errors="replace") if log.exists() else ""
    return sum(len(line) for line in re.findall(r"^[.sxXFE]+", said, re.MULTILINE))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--sessions", type=int, default=6, help="fresh processes (default: %(default)s)")
    parser.add_argument(
        "--busy", type=int, default=4, help="processes that compute meanwhile (default: %(default)s)"
    )
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest, after --")
    args = parser.parse_args(argv)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args.pytest]
    n = min(args.sessions, args.rounds)
    shares = [range(k, args.rounds, n) for k in range(n)]
    begun = time.monotonic()

    def session(log: Path, rounds: range) -> bool:
        env = {
            **os.environ,
            "TESTS_PROFILE": "soak",
            "TESTS_ROUNDS": ",".join(map(str, rounds)),
            "TESTS_OF_ROUNDS": str(args.rounds),
        }
        with open(log, "w") as out:
            done = subprocess.run(
                command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, check=False
            )
        said = log.read_text(errors="replace")
        last = (re.findall(r".*\b\d+ (?:passed|failed|error).*", said) or ["no test ran"])[-1]
        fine = done.returncode in (0, NO_TESTS)  # a selection of a few leaves some rounds without any
        print(f"{len(rounds)} rounds: {last}" + ("" if fine else f"\n{said[-6000:]}"), flush=True)
        return fine

    with TemporaryDirectory() as folder, busy(args.busy), ThreadPoolExecutor(n) as pool:
        logs = [Path(folder, f"{k}.log") for k in range(n)]
        ended = [pool.submit(session, log, share) for log, share in zip(logs, shares)]
        while wait(ended, timeout=60).not_done:
            minutes = (time.monotonic() - begun) / 60
            print(f"{minutes:.0f} min: {sum(map(how_many, logs)):,} tests", flush=True)
        failed = [each.result() for each in ended].count(False)
    minutes = (time.monotonic() - begun) / 60
    print(f"{args.rounds} rounds in {minutes:.1f} min, {failed} of {n} sessions failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
