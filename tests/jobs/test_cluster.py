"""facescale.jobs.cluster: calls on the workers of a Dask cluster."""

import math
import os
from socket import socket

import pytest

from facescale.jobs.cluster import Cluster
from facescale.model_card import Contract

pytest.importorskip("distributed")


def test_results_come_with_their_places(cluster) -> None:
    with Cluster(cluster.scheduler_address) as here:
        assert here.num_threads >= 1
        assert sorted(here.map(math.factorial, [(n,) for n in range(20)])) == [
            (n, math.factorial(n)) for n in range(20)
        ]


def test_a_sentence_raised_on_a_worker_is_raised_here_and_other_errors_are_named(cluster) -> None:
    with Cluster(cluster.scheduler_address) as here:
        with pytest.raises(ValueError, match="size"):
            list(here.map(Contract.from_dict, [({"size": "x"},)]))
        with pytest.raises(RuntimeError, match=r"part 2 failed .*: FileNotFoundError: .*; the same"):
            list(here.map(os.stat, [("/",), ("/nowhere",)]))


def test_an_address_where_nobody_answers_is_named() -> None:
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ValueError, match=rf"cannot reach a Dask scheduler at '{address}'"):
            Cluster(address, patience=0.2)
    with pytest.raises(ValueError, match="cannot reach a Dask scheduler at 'nonsense'"):
        Cluster("nonsense", patience=0.2)


def test_a_scheduler_without_workers_is_named() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50, processes=False) as empty,
        pytest.raises(ValueError, match=r"at '.*' has no worker; start some with: dask worker"),
    ):
        Cluster(empty.scheduler_address, patience=0.2)
