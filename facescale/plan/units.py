"""Amounts of memory and numbers of identities as text."""

import re


def parse_memory(text: str) -> int:
    """Bytes in a text such as "24GB", "16 GiB" or "512MB".

    Raises:
        ValueError: not an amount of memory.
    """
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    digits = text.strip().rstrip("BKMGTIbkmgti ")
    unit = text.strip()[len(digits) :].strip().upper()
    try:
        return round(float(digits) * units[unit])
    except (ValueError, KeyError):
        raise ValueError(f"'{text}' is not an amount of memory; write 24GB, 16GiB or 512MB") from None


def amount(num_bytes: int) -> str:
    """Bytes as text, in the unit that fits: ``2.13 GB``, ``512 MB``, ``3.4 MB``, ``120 KB``."""
    for unit, size in (("TB", 10**12), ("GB", 10**9)):
        if num_bytes >= size:
            return f"{num_bytes / size:.2f} {unit}"
    for unit, size in (("MB", 10**6), ("KB", 10**3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.{0 if num_bytes >= 10 * size else 1}f} {unit}"
    return f"{num_bytes} bytes"


def parse_counts(text: str) -> list[int]:
    """Numbers of identities, such as ``100k,1M,2500000``.

    Raises:
        ValueError: not such a list.
    """
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", part.strip())
        if not match:
            raise ValueError(f"'{part}' is not a number of identities; write 5000, 100k or 1M")
        counts.append(round(float(match[1]) * {"": 1, "k": 10**3, "M": 10**6}[match[2]]))
    return counts
