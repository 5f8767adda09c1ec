"""One sentence for any failure: what the user sees instead of a library's own text."""

import errno
import os

from facescale.guard.reading import is_sentence, raised_here, reason

_ADVICE = {
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some of your quota, or choose another disk",
    errno.EROFS: "it lies on a read-only file system: choose another place",
    errno.EACCES: "check its permissions, or choose another place",
    errno.EPERM: "check its permissions, or choose another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file, not a folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "the disk may be failing: copy what is on it",
}
_TRACEBACK = "set FACESCALE_TRACEBACK=1 to see where"
_USERS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)


class NoticeWarning(UserWarning):
    """A sentence that the user should read before what it is about happens; commands print it as it is."""


def explained(error: BaseException) -> tuple[str, int]:
    """A sentence about an error, and the exit status: 2 where the user's input is wrong, else 1."""
    if is_sentence(error):
        return str(error), 2
    if type(error).__module__.startswith("facescale.") or (
        isinstance(error, RuntimeError) and raised_here(error)
    ):
        return str(error), 1
    if isinstance(error, OSError):
        names = [
            os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
        ]
        place = " and ".join(f"'{name}'" for name in names) or "a file"
        advice = _ADVICE.get(error.errno or 0, _TRACEBACK)
        return f"cannot use {place}: {reason(error)}; {advice}", 2 if isinstance(error, _USERS) else 1
    if (
        isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error)
    ):
        return "there is not enough memory for this; lower the batch size, or see: facescale plan", 1
    kind = type(error).__name__
    return f"an internal step failed ({kind}: {reason(error)}); {_TRACEBACK}, and report it if it persists", 1
