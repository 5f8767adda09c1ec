"""What counts as a picture, the same for every folder that is read.

A file with a picture's suffix is one (what is in it shows when it is decoded); any other is judged by its
first bytes, so that pictures without a suffix, or with a wrong one, are there too. What is passed over is
counted.
"""

import os
from collections import Counter
from collections.abc import Mapping

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp"})
HIDDEN = "hidden files"

# Side folders of network storage, macOS and Windows: thumbnails, recycle bins, resource forks.
_SYSTEM_FOLDERS = frozenset(
    name.lower()
    for name in (
        "@eaDir", "@Recycle", "@Recently-Snapshot", "@tmp", "#recycle", "#snapshot", "__MACOSX",
        "$RECYCLE.BIN", "System Volume Information", "lost+found",
    )
)  # fmt: skip


def picture_suffix(first_bytes: bytes) -> str:
    """The suffix that belongs to a file of these first 12 bytes; empty where it is not a picture."""
    if first_bytes[:3] == b"\xff\xd8\xff":
        return ".jpg"
    if first_bytes[:4] == b"\x89PNG":
        return ".png"
    if first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP":
        return ".webp"
    is_bitmap = first_bytes[:2] == b"BM" and first_bytes[6:10] == bytes(4)  # the reserved bytes
    return ".bmp" if is_bitmap else ""


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture: by its suffix, else by its first bytes."""
    if os.path.splitext(path)[1].lower() in SUFFIXES:
        return True
    if not os.path.isfile(path):  # opening a pipe would wait for its writer
        return False
    try:
        with open(path, "rb", buffering=0) as file:
            return bool(picture_suffix(file.read(12)))
    except OSError:
        return False


def is_system_folder(name: str) -> bool:
    """Whether a folder of this name is kept by an operating system or a network storage for itself."""
    return name.lower() in _SYSTEM_FOLDERS


def kind_of(name: str) -> str:
    """What a file that is passed over is counted as: its suffix, or that it has none or is hidden."""
    if name.startswith("."):
        return HIDDEN
    return os.path.splitext(name)[1].lower() or "no suffix"


def listed(counts: Mapping[str, int]) -> str:
    """Counts as text: ``.heic (3), folder @eaDir (2)``."""
    return ", ".join(f"{kind} ({count:,})" for kind, count in Counter(counts).most_common())
