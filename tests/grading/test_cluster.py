"""A class on a Dask cluster and in parts gets the results of one machine."""

from __future__ import annotations

import importlib.util

from chunkprefill_grading.marking import cluster
from chunkprefill_grading.marking.run import Judging, run
from chunkprefill_grading.marking.settle import read_all
from chunkprefill_grading.marking.shards import GradingShard, merge
from tests.grading.hostile import world
from tests.grading.test_run import LIMITS, a_class
from tests.needs import need


def whole(folder) -> list[tuple]:
    return [(r.student, r.status, r.score, r.marks, r.reason, dict(r.hashes)) for r in read_all(folder)]


def test_in_parts_and_on_a_cluster_as_on_one_machine(walls, tmp_path):
    due = a_class(tmp_path / "in", 7)
    by = Judging(world.KEY, LIMITS, marker=world.mark)
    run(tmp_path / "in", tmp_path / "one", by, quiet=True)
    assert {student: (status, score) for student, status, score, *_ in whole(tmp_path / "one")} == due
    for n in (1, 2, 3):
        run(tmp_path / "in", tmp_path / str(n), by, shard=GradingShard(n, 3), quiet=True)
    merge(tmp_path / "merged", [tmp_path / str(n) for n in (1, 2, 3)])
    assert whole(tmp_path / "merged") == whole(tmp_path / "one")

    need("distributed", importlib.util.find_spec("distributed"), "pip install distributed")
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        made = cluster.run_on(client, tmp_path / "in", tmp_path / "dask", by, quiet=True)
        assert len(made) == 7
        assert not cluster.run_on(client, tmp_path / "in", tmp_path / "dask", by, quiet=True), "done already"
    assert whole(tmp_path / "dask") == whole(tmp_path / "one")
