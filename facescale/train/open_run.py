"""A run's folder at the start of a sitting: is it free, of this config, and of the same people and images."""

import json
from collections.abc import Sequence
from pathlib import Path

from facescale.config import Config, changed_keys, duration_steps, load_config
from facescale.data.digest import DataDigest, image_changes, read_digest
from facescale.data.identities import people_changes, write_identities
from facescale.data.readers.base import Reader
from facescale.distributed import Dist
from facescale.files import write_atomically
from facescale.plan import Plan
from facescale.plan.check import read_config
from facescale.run import RunDir
from facescale.train.optim import make_schedule

# Keys that may change between two sittings of one run. The images are compared themselves, wherever they lie;
# another length is said, as the schedule follows it; the others do not change what is learned.
_FREE = (
    "checkpoint.",
    "eval.",
    "data.train",
    "data.workers",
    "data.max_bad_share",
    "train.duration",
    "train.log_every",
    "train.max_bad_steps",
    "train.roll_back_",
    "distributed.",
)
_NOT_A_SIGN = {".log", ".out", ".err", ".toml"}  # suffixes that users and launchers put into a new run folder
_OTHER_DATA = "continue with the data as it was, or start another run with --set train.init="


def config_for(run_path: str | Path, path: str | Path | None = None, settings: Sequence[str] = ()) -> Config:
    """The config of a sitting: of the file, else of the run; else the defaults; with ``settings`` on top.

    Settings of a run that has no checkpoint yet begin from the defaults, as those of a new run do.

    Raises:
        ValueError: see ``facescale.plan.check.read_config``.
    """
    run = RunDir(run_path)
    if path is None and run.config.is_file() and (run.steps() or not settings):
        path = run.config
    return read_config(path, settings)


def check_folder(run: RunDir) -> None:
    """Make sure that the folder is a run's, or free for one.

    Raises:
        ValueError: it holds other things, so that a run in it would mix with them.
    """
    if run.config.is_file() or not run.path.exists():
        return
    if not run.path.is_dir():
        raise ValueError(f"{run.path} is a file; use another --run folder")
    ours = {path.name for path in vars(run).values() if isinstance(path, Path)}
    others = (entry for entry in run.path.iterdir() if entry.name not in ours and entry.name[0] != ".")
    foreign = sorted(entry.name for entry in others if entry.is_dir() or entry.suffix not in _NOT_A_SIGN)
    if foreign:
        raise ValueError(
            f"{run.path} is not a run and holds other things ({len(foreign)}, such as '{foreign[0]}'); use a "
            "new or empty --run folder"
        )


def open_run(
    config: Config,
    plan: Plan,
    reader: Reader,
    digest: DataDigest,
    path: str | Path,
    dist: Dist,
    resume: bool,
) -> RunDir:
    """Make the run folder, or check that the run there is of this config and these people and images.

    A run that ended before its first checkpoint starts again, with whatever config and data.

    Raises:
        ValueError: the folder holds another run.
    """
    run = RunDir(path)
    if run.steps() and not resume:
        raise ValueError(f"the run {path} has checkpoints already; continue it, or use another --run folder")
    if run.steps():
        _check_config(run, config)
        _check_length(run, plan)
        check_data(run, config, reader, digest)
    dist.barrier()
    if dist.is_main:
        run.create()
        write_identities(run.identities, config, reader)
        write_atomically(run.config, config.to_toml())
        write_atomically(run.plan, json.dumps(plan.to_dict(), indent=1))
    dist.barrier()
    return run


def check_data(run: RunDir, config: Config, reader: Reader, digest: DataDigest) -> None:
    """Make sure that people and images are those that the run was started with, wherever they lie.

    Raises:
        ValueError: they are others; says how many and names one.
    """
    changes = people_changes(run.identities, config, reader) if run.identities.is_file() else []
    if not changes and run.data.is_file():
        images = image_changes(read_digest(run.data), digest, reader)
        changes = [f"images: {change}" for change in images]
    if changes:
        raise ValueError(
            f"the data has changed since the run {run.path} was started ({'; '.join(changes)}), so it would "
            f"not be the same run; {_OTHER_DATA}{run.path}"
        )


def keep_digest(run: RunDir, saved: str | None, digest: DataDigest, dist: Dist) -> None:
    """Remember the images of the run, unless its newest checkpoint was trained on others.

    The checkpoint is asked where the run itself does not know its images.

    Args:
        run: the run folder.
        saved: ``DataDigest.text`` in the checkpoint; None if it has none.
        digest: of the images now.
        dist: the main process writes.

    Raises:
        ValueError: it was trained on others.
    """
    if not run.data.is_file() and saved not in (None, digest.text):
        raise ValueError(
            f"the newest checkpoint of the run {run.path} was trained on other images; "
            f"{_OTHER_DATA}{run.path}"
        )
    if dist.is_main:
        digest.write(run.data)


def changed_length(run: RunDir, config: Config, plan: Plan) -> str | None:
    """One sentence on what another ``train.duration`` than in the last sitting changes, or None.

    Args:
        run: as the last sitting left it.
        config: of this sitting.
        plan: of this sitting.
    """
    if not run.steps() or not run.config.is_file():
        return None
    old, step = load_config(run.config), run.steps()[-1]
    before = duration_steps(old.train.duration, plan.steps_per_epoch)
    if before == plan.total_steps:
        return None
    rates = [
        make_schedule(one.optim, one.train.batch_size, plan.steps_per_epoch, total)(step)
        for one, total in ((old, before), (config, plan.total_steps))
    ]
    return (
        f"the run now has {plan.total_steps} steps instead of {before}: the learning rate, and all that is "
        f"given in % of the run, follows the new length; at step {step} the rate is {rates[1]:.3g} (it would "
        f"have been {rates[0]:.3g})"
    )


def _check_config(run: RunDir, config: Config) -> None:
    if not run.config.is_file():
        raise ValueError(
            f"the run {run.path} has checkpoints but no config.toml, so it is not known what it trains; put "
            "the config back that it was started with, or use another --run folder"
        )
    changed = [key for key in changed_keys(load_config(run.config), config) if not key.startswith(_FREE)]
    if changed:
        raise ValueError(
            f"the run {run.path} was started with other values of {', '.join(changed)}; "
            "use another --run folder, or the same values to continue"
        )


def _check_length(run: RunDir, plan: Plan) -> None:
    done = run.steps()[-1]
    if plan.total_steps < done:
        raise ValueError(
            f"the run {run.path} has done {done} steps already and train.duration is {plan.total_steps} "
            "steps; make it longer to continue"
        )
