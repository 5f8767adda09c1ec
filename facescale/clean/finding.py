"""What is wrong with an image or an identity, what is proposed, and the edit list that follows."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from facescale.data.readers.edits import Action, Edits
from facescale.files import replacing
from facescale.guard.shown import csv_cell

MISLABELLED = "mislabelled image"
SPLIT = "split identity"
MERGED = "merged identity"
COPY = "near-duplicate"
CONFLICT = "near-duplicate under another identity"
TEST_IMAGE = "image of a test set"
TEST_PERSON = "person of a test set"
KINDS = (MISLABELLED, SPLIT, MERGED, COPY, CONFLICT, TEST_IMAGE, TEST_PERSON)

# a picture of the report: number of the set (0: the data set), row in it
Picture = tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        kind: one of `KINDS`.
        name: key of the image, or name of the identity.
        other: what it was compared with: an image, an identity, a person of a test set.
        score: the higher, the clearer; what it is depends on the kind.
        action: of the edit list; empty if this is only worth a look.
        into: identity that the action leads to.
        where: the test set.
        evidence: what tells it, where several things can.
        images: keys of the images that the action is for; empty: ``name`` itself.
        shown: pictures for the report: (heading, pictures) of each column.
    """

    kind: str
    name: str
    other: str
    score: float
    action: Action | None = None
    into: str = ""
    where: str = ""
    evidence: str = ""
    images: tuple[str, ...] = ()
    shown: tuple[tuple[str, tuple[Picture, ...]], ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        del values["shown"]
        return values | {"score": round(self.score, 4), "images": list(self.images)}


def edits_of(findings: Sequence[Finding]) -> Edits:
    """The edit list of all proposals; what is to be dropped is not moved or merged too."""
    images: dict[str, str | None] = {}
    identities: dict[str, str | None] = {}
    for finding in findings:
        drops = finding.action in ("drop_image", "drop_identity")
        table = images if finding.action in ("drop_image", "move_image") else identities
        for name in (finding.images or (finding.name,)) if finding.action else ():
            if drops or name not in table:
                table[name] = None if drops else finding.into
    return Edits(images, identities)


def write_csv(path: Path, findings: Sequence[Finding]) -> None:
    """One line per finding; names keep their bytes."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["kind", "name", "other", "score", "action", "into", "test_set", "evidence", "images"])
        for one in findings:
            texts = map(csv_cell, [one.kind, one.name, one.other])
            rest = map(csv_cell, [one.action or "", one.into, one.where, one.evidence])
            rows.writerow([*texts, f"{one.score:.4f}", *rest, len(one.images) or ""])


def write_json(path: Path, values: dict[str, Any], findings: Sequence[Finding]) -> None:
    """All findings and the figures of the run."""
    with replacing(path) as temporary:
        tree = values | {"findings": [one.to_dict() for one in findings]}
        temporary.write_text(json.dumps(tree, indent=1), encoding="utf-8")
