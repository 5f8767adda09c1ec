"""One work on many machines: the parts of an array job, and tasks on a Dask cluster."""

from facescale.jobs.part import Part

__all__ = ["Part"]
