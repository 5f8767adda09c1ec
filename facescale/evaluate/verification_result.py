"""What one-to-one verification of a pair protocol found out."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from facescale.arrays import FloatArray
from facescale.evaluate.curves import rates_by_threshold, roc_points, score_shares
from facescale.evaluate.figures import analysis_notes, interval_facts
from facescale.evaluate.fold_rules import PAIR_RULES, PairResult, one_sided_folds
from facescale.evaluate.hardest import hardest_pairs
from facescale.evaluate.metrics import MIN_FALSE_ACCEPTS, OperatingPoint, Roc
from facescale.evaluate.pair_intervals import MOST_LISTED, listed_pairs
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.scored import ScoredImages

DEFAULT_RULE = "insightface"
_DEAD = 1e-3  # range of the cosines of all pairs; that of an untrained network is wider


@dataclass(frozen=True)
class VerificationResult:
    """The results of a verification run.

    Attributes:
        name: of the protocol.
        pairs: the protocol.
        scores: (N,) cosine of each pair.
        accuracy: accuracy by folds.
        rule: how a fold took its threshold from the others: a key of `PAIR_RULES`.
        curve: the exact ROC.
        points: threshold and TAR at each requested false-accept rate, with intervals.
        accuracy_interval: low and high end.
        people: how it is known whose images are compared, which the intervals rest on.
        mean_norm: mean length of the raw embeddings (insightface prints it as XNorm).
        num_images: images that were embedded.
        flip: whether the mirrored view was added.
        size: side of the images that the network took, pixels.
        scaled: "WIDTHxHEIGHT" of the images that had another size -> how many.
        scored: the scored pairs of images, for analyses.
        analyses: by name (groups, erc, transfer), plain values for JSON; see `facescale.evaluate.analyses`.
        drawn: curves of analyses.
    """

    name: str
    pairs: Pairs
    scores: FloatArray
    accuracy: PairResult
    rule: str
    curve: Roc
    points: tuple[OperatingPoint, ...]
    accuracy_interval: tuple[float, float]
    people: str
    mean_norm: float
    num_images: int
    flip: bool
    size: int
    scaled: Mapping[str, int]
    scored: ScoredImages = field(repr=False)
    analyses: Mapping[str, Any] = field(default_factory=dict)
    drawn: Mapping[str, Any] = field(default_factory=dict)

    @property
    def deviation(self) -> float:
        """Spread of the accuracy over the folds, as the rule defines it."""
        return PAIR_RULES[self.rule].deviation(self.accuracy)

    def figures(self) -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar, without rates that the set is too small for."""
        yield "accuracy", self.accuracy.mean
        yield "accuracy_std", self.deviation
        yield "auc", self.curve.auc
        yield "eer", self.curve.eer
        for point in self.points:
            if point.supported:
                yield f"tar@far={point.far:g}", point.tar
                if point.usable:
                    yield f"threshold@far={point.far:g}", point.threshold
        yield "mean_norm", self.mean_norm

    def summary(self) -> str:
        """One line of figures in percent."""
        points = "".join(f", TAR@FAR={p.far:g} {p.tar:.2%}" for p in self.points if p.supported)
        rule = "" if self.rule == DEFAULT_RULE else f" (rule {self.rule})"
        return (
            f"{self.name}: accuracy{rule} {self.accuracy.mean:.2%} +- {self.deviation:.2%}, "
            f"AUC {self.curve.auc:.4f}, EER {self.curve.eer:.2%}{points}"
        )

    @property
    def _thresholds_are(self) -> str:
        return "squared_distance_thresholds" if PAIR_RULES[self.rule].is_distance else "cosine_thresholds"

    @property
    def dead(self) -> str:
        """A sentence if the network gives all images the same embedding, so that no figure means anything."""
        low, high = float(self.scores.min()), float(self.scores.max())
        if high - low > _DEAD:
            return ""
        return (
            f"{self.name}: the network gives every image the same embedding (all cosines are from {low:.4f} "
            f"to {high:.4f}), so the accuracy is chance: it has not learnt yet (train longer), or it is dead "
            "(use an earlier checkpoint or a lower learning rate)"
        )

    def notes(self) -> list[str]:
        """A sentence for each thing that makes a figure less than it seems, or leaves it out."""
        notes = [f"{self.name}: {remark}" for remark in self.pairs.remarks]
        if self.rule != DEFAULT_RULE:
            notes.append(f"{self.name}: accuracy by rule {self.rule}: {PAIR_RULES[self.rule].meaning}")
        notes += [
            f"{self.name}: {count:,} images are {size} and were scaled to {self.size}x{self.size}; unless "
            "the training scaled its images too (data.resize), the network wants faces aligned to that size"
            for size, count in self.scaled.items()
        ]
        if one_sided := one_sided_folds(self.pairs.is_same, self.pairs.fold):
            notes.append(
                f"{self.name}: {one_sided} of {len(self.accuracy.folds)} folds hold genuine or impostor "
                "pairs only, so VAL rests on the others; mix the pairs before they are cut into folds"
            )
        lacking = sorted((point.far for point in self.points if not point.supported), reverse=True)
        if lacking:
            notes.append(
                f"{self.name}: FAR {lacking[0]:g} needs {round(MIN_FALSE_ACCEPTS / lacking[0]):,} impostor "
                f"pairs; the set has {self.curve.num_impostor:,}, which support rates down to "
                f"{MIN_FALSE_ACCEPTS / self.curve.num_impostor:.2g}"
            )
        notes += [f"{self.name}: {note}" for note in analysis_notes(self.analyses)]
        return [*notes, self.dead] if self.dead else notes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; non-finite values (no score achieves the rate) become None."""
        return {
            "kind": "verification",
            "name": self.name,
            "source": self.pairs.source,
            "images": self.num_images,
            "genuine_pairs": self.curve.num_genuine,
            "impostor_pairs": self.curve.num_impostor,
            "flip": self.flip,
            "rule": self.rule,
            "accuracy": {
                "mean": self.accuracy.mean,
                "rule_meaning": PAIR_RULES[self.rule].meaning,
                "std": self.deviation,
                "folds": self.accuracy.folds.tolist(),
                self._thresholds_are: self.accuracy.thresholds.tolist(),
                "val": self.accuracy.val,
                "val_std": self.accuracy.val_std,
                "val_far": self.accuracy.far,
            },
            "auc": self.curve.auc,
            "eer": self.curve.eer,
            "operating_points": [
                {key: value if math.isfinite(value) else None for key, value in vars(point).items()}
                for point in self.points
            ],
            "notes": self.notes(),
            "mean_norm": self.mean_norm,
            **interval_facts(self.intervals()),
            "people": self.people,
            **self.analyses,
        }

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Low and high end by the name of the figure."""
        points = [point.intervals() for point in self.points if point.supported]
        return {"accuracy": self.accuracy_interval, **{k: v for one in points for k, v in one.items()}}

    def curves(self) -> dict[str, Any]:
        """ROC, rates over the threshold, distributions of the scores; which of a few pairs are right."""
        drawn: dict[str, Any] = {
            **self.drawn,
            "roc": roc_points(self.curve),
            "rates": rates_by_threshold(self.curve),
            "scores": score_shares(self.scores, self.pairs.is_same),
        }
        if len(self.pairs) <= MOST_LISTED:
            drawn["pairs"] = listed_pairs(
                self.pairs, self.scored.person_N, self.scores, self.accuracy, self.rule
            )
        return drawn

    def hardest(self, pictures: bool) -> dict[str, list[dict[str, Any]]]:
        """The genuine pairs with the lowest and the impostor pairs with the highest scores."""
        return hardest_pairs(self.pairs, self.scores, pictures)
