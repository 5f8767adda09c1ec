"""The names that a converted data set keeps beside it: labels.json, label -> name of the identity."""

import json
from collections.abc import Sequence
from pathlib import Path

LABELS = "labels.json"


def original_names(folder: Path, labels: Sequence[str]) -> Sequence[str]:
    """What the source of a converted set called the identities ``labels``; themselves without a labels.json.

    Leading zeros of a label do not count. A label that the file does not know stays as it is (an identity
    that was added later).

    Raises:
        ValueError: labels.json does not hold names by label.
    """
    file = folder / LABELS
    try:
        known = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return labels
    except (OSError, ValueError, RecursionError):
        known = None
    if not isinstance(known, dict) or not all(isinstance(name, str) for name in known.values()):
        raise ValueError(
            f"'{file}' does not map labels to names; put back the file that convert-data wrote, or remove it "
            "to call the identities by their labels"
        )
    names = [known.get(label.lstrip("0") or "0", label) if label.isdecimal() else label for label in labels]
    return names if len(set(names)) == len(names) else labels
