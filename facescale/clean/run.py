"""``facescale clean``: find what is wrong with the labels of a data set, propose an edit list, show it."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from facescale.arrays import BoolArray
from facescale.clean.against import TestSet, open_test_set
from facescale.clean.centres import Centres, robust_centres
from facescale.clean.embedded import Embedded, Embedding, Progress, embed_readable
from facescale.clean.finding import KINDS, Finding, edits_of, write_csv, write_json
from facescale.clean.identities import find_merges, find_splits
from facescale.clean.judge import Judged, duplicated, in_test_set, merged, mislabelled, split
from facescale.clean.labels import check_labels
from facescale.clean.metric import Metric, within_class_metric
from facescale.clean.overlap import shared_people
from facescale.clean.page import write_page
from facescale.clean.threshold import Threshold
from facescale.data.images import Images, ReaderImages
from facescale.data.readers.base import Reader, identity_names
from facescale.data.readers.edits import write_edits
from facescale.inference.load import load
from facescale.prepare.near_copies import copies_between, copy_threshold, near_copies
from facescale.prepare.same_photo import SAME

EDITS, PAGE, TABLE, FIGURES, FEATURES = "edits.csv", "clean.html", "findings.csv", "findings.json", "features"
DATA = "the data set"
LEAST_RANK1 = 0.9  # of the images find their own identity; a weaker model misses much


@dataclass(frozen=True)
class Options:
    """From where on something is called wrong; what is None is taken from the data.

    Attributes:
        precision: expected fraction of real errors among the proposals of a kind, for the thresholds from the
            data. The estimate is a careful one: usually more of them are real.
        label: least margin of a mislabelled image (`facescale.clean.labels`).
        split: least score of two identities that are one person (`facescale.clean.identities`).
        merged: least score of an identity that is two people.
        near: cosine from which pairs are compared by their pixels (`facescale.prepare.near_copies`).
        same: agreement of the pixels from which two images show one photo.
        shared: least score of a person of a test set (`facescale.clean.overlap`).
        pictures: show faces in the report.
        batch_size: images in one forward pass.
        workers: decoding threads.
        device: where to compute.

    Raises:
        ValueError: a value out of its range.
    """

    precision: float = 0.75
    label: float | None = None
    split: float | None = None
    merged: float | None = None
    near: float | None = None
    same: float = SAME
    shared: float | None = None
    pictures: bool = True
    batch_size: int = 128
    workers: int = 2
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("precision", "same"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} = {value} must lie between 0 and 1")
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float) and not (math.isfinite(value) and -2 <= value <= 2):
                raise ValueError(
                    f"{one.name} = {value} must lie between -2 and 2; it is a difference of cosines"
                )


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        folder: with edits.csv, clean.html, findings.csv and findings.json.
        images: readable images of the data set.
        identities: with readable images.
        bad: unreadable images of the data set and reasons.
        rank1: fraction of the images that are nearest to their own identity, a measure of the model.
        proposed: proposals by kind.
        thresholds: by kind.
        near: cosine from which pairs were compared by their pixels.
        findings: all of them.
    """

    folder: Path
    images: int
    identities: int
    bad: dict[str, str]
    rank1: float
    proposed: dict[str, int]
    thresholds: dict[str, Threshold]
    near: float
    findings: Sequence[Finding] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the findings; thresholds that nothing reaches are null."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "findings"}
        thresholds = {
            kind: {key: value if math.isfinite(value) else None for key, value in asdict(one).items()}
            for kind, one in self.thresholds.items()
        }
        return values | {"folder": str(self.folder), "thresholds": thresholds}

    def lines(self) -> Iterator[str]:
        """The report as text."""
        what = f"{self.images:,} images of {self.identities:,} identities"
        yield f"{what}; {self.rank1:.1%} are nearest to their own identity"
        if self.rank1 < LEAST_RANK1:
            yield "! the model is weak on this data and misses much; check its proposals, or use a better one"
        if self.bad:
            yield f"  {len(self.bad):,} images cannot be read, such as {next(iter(self.bad))!r}"
        for kind in KINDS:
            looks = sum(one.kind == kind and one.action is None for one in self.findings)
            more = f", {looks} more to look at" if looks else ""
            yield f"  {self.proposed.get(kind, 0):>7,}  {kind}{more}"


def clean(
    data: Reader,
    model: str | Path,
    out: str | Path,
    against: Sequence[str] = (),
    options: Options | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for wrong labels, copies, and people of test sets in a data set; nothing in it is changed.

    ``out`` receives edits.csv (for ``data.edits`` of a training and ``--edits`` of other commands),
    clean.html with the pictures, findings.csv and findings.json with all scores, and the embeddings, so
    that the same call continues after an interruption, and repeats with other thresholds at little cost.

    Time is N images times C identities for labels, N squared / 2 for copies, C squared for split
    identities and N times M for a test set of M images, all products of matrices; memory is 4 bytes per
    number of the embeddings, twice, and a block of cosines.

    Args:
        data: the images.
        model: what `facescale.load` takes.
        out: folder.
        against: test sets, ``NAME=SPEC`` or ``SPEC``: protocols as ``evaluate --on`` takes them, or data
            sets.
        options: thresholds, batch size and device.
        progress: told what is embedded.

    Raises:
        ValueError: no such model or test set, a name that comes twice, no image that can be read.
    """
    chosen, folder = options or Options(), Path(out)
    tests, how = open_all(model, folder, against, chosen, progress)
    loaded, size = how.model, how.model.contract.size
    found = embed_readable(ReaderImages(data), how, DATA)
    kept, ids = np.unique(data.ids[found.index_N], return_inverse=True)
    names = [identity_names(data)[one] for one in kept.tolist()]
    near = (
        copy_threshold(loaded.embed, found.images, size, found.unit_ND)
        if chosen.near is None
        else chosen.near
    )
    looked = _Looked(found, ids.astype(np.int64), names, chosen, near)
    findings = list(looked.within())
    sources: list[Images] = [found.images]
    for number, test in enumerate(tests, start=1):
        theirs = embed_readable(test.images, how, test.name)
        sources.append(theirs.images)
        findings += looked.against(number, test, theirs)
    report = looked.report(folder, findings)
    write_edits(folder / EDITS, edits_of(findings))
    write_csv(folder / TABLE, findings)
    write_json(folder / FIGURES, report.to_dict(), findings)
    write_page(folder / PAGE, report, sources if chosen.pictures else None)
    return report


def open_all(
    model: str | Path, folder: Path, against: Sequence[str], options: Options, progress: Progress | None
) -> tuple[list[TestSet], Embedding]:
    """The test sets, and the network that embeds them and the data set; arguments as of `clean`."""
    loaded = load(model, options.device)
    tests = [open_test_set(text, loaded.contract.size) for text in against]
    _check_names([test.name for test in tests])
    return tests, Embedding(loaded, folder / FEATURES, options.batch_size, options.workers, progress)


class _Looked:
    """A data set that is compared with itself and with test sets."""

    def __init__(
        self, found: Embedded, ids: Any, names: Sequence[str], options: Options, near: float
    ) -> None:
        self._found, self._ids, self._names, self._options, self._near = found, ids, names, options, near
        self._metric: Metric = within_class_metric(found.unit_ND, ids)
        self._unit_ND = self._metric.apply(found.unit_ND)
        self._centres: Centres = robust_centres(self._unit_ND, ids)
        self._data = Judged(found.images, ids, names, self._centres.own_N)
        self._thresholds: dict[str, Threshold] = {}
        self._wrong_N: BoolArray = np.zeros(len(ids), bool)
        self._rank1 = math.nan

    def within(self) -> Iterator[Finding]:
        """What is wrong in the set itself."""
        options, precision = self._options, self._options.precision
        merges = find_merges(self._unit_ND, self._ids, self._centres, precision, options.merged)
        apart_N = merges.part_N & np.isin(self._ids, merges.found).astype(bool)
        splits = find_splits(self._unit_ND, self._ids, self._centres, precision, options.split)
        labels = check_labels(
            self._unit_ND,
            self._ids,
            self._centres,
            precision,
            apart_N=apart_N,
            partner_C=splits.partners(len(self._names)),
            margin=options.label,
        )
        copies = near_copies(self._found.images, self._found.unit_ND, self._near, options.same)
        self._wrong_N[labels.wrong] = True
        self._rank1 = float(np.mean(labels.own_N > labels.other_N))
        self._thresholds |= dict(
            zip(KINDS, (labels.threshold, splits.threshold, merges.threshold), strict=False)
        )
        yield from mislabelled(self._data, labels)
        yield from split(self._data, splits)
        yield from merged(self._data, merges)
        yield from duplicated(self._data, copies, self._found.pixels_N.astype(float))

    def against(self, number: int, test: TestSet, theirs: Embedded) -> Iterator[Finding]:
        """Photos and people of a test set."""
        person_N = np.unique(test.person_N[theirs.index_N], return_inverse=True)
        kept = TestSet(
            test.name,
            theirs.images,
            person_N[1].astype(np.int64),
            tuple(test.names[one] for one in person_N[0]) if test.names else (),
        )
        ours = self._found.images, self._found.unit_ND
        copies = copies_between(ours, (theirs.images, theirs.unit_ND), self._near, self._options.same)
        person_TD = robust_centres(self._metric.apply(theirs.unit_ND), kept.person_N).unit_CD
        options = self._options
        people = shared_people(
            self._unit_ND, self._ids, self._centres, person_TD, options.precision, options.shared
        )
        self._thresholds[f"{KINDS[-1]}: {test.name}"] = people.threshold
        yield from in_test_set(self._data, number, kept, copies, people, self._wrong_N)

    def report(self, folder: Path, findings: Sequence[Finding]) -> Report:
        """The figures of all that was found."""
        proposed = Counter(one.kind for one in findings if one.action)
        counts = {kind: proposed[kind] for kind in KINDS if proposed[kind]}
        return Report(
            folder,
            len(self._ids),
            len(self._names),
            self._found.bad,
            self._rank1,
            counts,
            self._thresholds,
            self._near,
            findings,
        )


def _check_names(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(
                f"{count} test sets are called '{name}'; tell them apart with --against NAME=SPEC"
            )
