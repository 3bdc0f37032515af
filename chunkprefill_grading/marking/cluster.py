"""A class on a Dask cluster: each submission travels there, and its result is written here."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from chunkprefill_grading.marking.results import Result, hash_of, write
from chunkprefill_grading.marking.run import Grader, Judging, is_done, locked, refuse_other_key
from chunkprefill_grading.marking.shards import WHOLE, GradingShard
from chunkprefill_grading.sandbox import limits as sandbox
from chunkprefill_grading.submission.collect import Student, read_list
from chunkprefill_grading.submission.load import Submission


def run_on(
    client: Any,
    submitted: Path,
    out: Path,
    by: Judging,
    *,
    shard: GradingShard = WHOLE,
    quiet: bool = False,
) -> list[Result]:
    """As `run`, on the workers of a `distributed.Client`: the same results, in the same files.

    The workers need this package, of the same version, and bubblewrap; no common disk. A worker that dies has
    its submissions graded by another. Raises ValueError for a folder that holds no submissions.
    """
    from distributed import KilledWorker, as_completed  # optional: only who has a cluster needs it

    students = shard.part(read_list(submitted).students)
    if not students:
        raise ValueError(f"{submitted}: no submissions here")
    out.mkdir(parents=True, exist_ok=True)
    made: list[Result] = []
    with locked(out):
        here = Grader(by, stage=out)
        refuse_other_key(out, here)
        here.prepare()
        waiting: dict[Any, tuple[Student, Submission | str]] = {}
        for student in students:
            found = here.read(student, submitted)
            sha = hash_of(found) if isinstance(found, str) else found.sha
            if not is_done(out, student, here.hashes(sha)):
                future = client.submit(graded, by, student, found, here.hashes(sha), pure=False)
                waiting[future] = student, found
        for future in tqdm(as_completed(list(waiting)), total=len(waiting), desc="grading", disable=quiet):
            try:
                result = future.result()
            except KilledWorker as error:
                result = here.failed(*waiting[future], "the machines that judged it ended", str(error))
            write(out, result)
            made.append(result)
    return sorted(made, key=lambda result: result.student)


def graded(
    by: Judging,
    student: Student,
    found: Submission | str,
    hashes: dict[str, str],
) -> Result:
    """One result, on a worker. RuntimeError where the worker's own grader is another than the client's."""
    grader = Grader(by, stage=_stage())
    if by.safe:
        sandbox.require_sandbox(grader.limits)
    sha = hash_of(found) if isinstance(found, str) else found.sha
    if grader.hashes(sha) != hashes:
        raise RuntimeError("the workers have another version of the grader than this machine")
    return grader.grade(student, found)


@lru_cache(maxsize=1)
def _stage() -> Path:
    """What is mounted into each sandbox, made once in the life of a worker."""
    folder = tempfile.TemporaryDirectory(prefix="chunkprefill-stage-")
    made = sandbox.staged(Path(folder.name) / "stage")
    path = made.__enter__()
    _KEPT.append((folder, made))  # until the worker ends
    return path


_KEPT: list[Any] = []
