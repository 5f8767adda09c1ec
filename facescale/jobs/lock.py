"""A lock on a folder that a killed process lets go of."""

import errno
from pathlib import Path
from typing import BinaryIO

_NOT_THERE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # a file system without locks


class BusyError(ValueError):
    """Another process works in the folder."""


def lock_folder(folder: Path, shared: bool = False) -> BinaryIO:
    """Lock a folder, which is made if it does not exist; closing what is returned lets go of it.

    Where there are no locks (Windows, some network file systems), two processes in one folder are not
    noticed.

    Args:
        folder: what is locked.
        shared: others may share it; else nobody may.

    Raises:
        BusyError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("ab+")  # over NFS, sharing needs reading and keeping others out writing
    try:
        import fcntl
    except ImportError:
        return file
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return file
        file.close()
        raise BusyError(f"another process works in '{folder}' right now; wait for it to end") from None
    return file
