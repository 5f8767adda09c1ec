"""A Dask cluster on this machine: two worker processes, started once for all tests that use it."""

import pytest


@pytest.fixture(scope="session")
def cluster():  # type: ignore[no-untyped-def]
    """A scheduler and two workers; skipped without the extra 'cluster'."""
    distributed = pytest.importorskip("distributed")
    import dask

    # Else Dask sets variables of threads and memory in this process, too, where other tests meet them
    quiet = dask.config.set({"distributed.nanny.pre-spawn-environ": {}})
    with (
        quiet,
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as local,
    ):
        yield local
