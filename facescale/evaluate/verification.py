"""One-to-one verification: embed the images of a pair protocol, score the pairs, compute the figures."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.curves import rates_by_threshold, roc_points, score_shares
from facescale.evaluate.embedding import Embedded, Extraction
from facescale.evaluate.figures import interval_facts
from facescale.evaluate.fold_rules import PAIR_RULES, PairResult, one_sided_folds
from facescale.evaluate.hardest import hardest_pairs
from facescale.evaluate.image_evaluator import ImageEvaluator
from facescale.evaluate.metrics import (
    MIN_FALSE_ACCEPTS,
    OperatingPoint,
    Roc,
    pair_accuracy,
    roc,
)
from facescale.evaluate.pair_intervals import MOST_LISTED, accuracy_interval, listed_pairs, points_of
from facescale.evaluate.people import people_of
from facescale.evaluate.protocols.pairs import Pairs

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
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
            f"{self.name}: {count:,} images are {size} and were scaled to {self.size}x{self.size}; the "
            "network wants faces aligned to that size"
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
        }

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Low and high end by the name of the figure."""
        points = [point.intervals() for point in self.points if point.supported]
        return {"accuracy": self.accuracy_interval, **{k: v for one in points for k, v in one.items()}}

    def curves(self) -> dict[str, Any]:
        """ROC, rates over the threshold, distributions of the scores; which of a few pairs are right."""
        drawn = {
            "roc": roc_points(self.curve),
            "rates": rates_by_threshold(self.curve),
            "scores": score_shares(self.scores, self.pairs.is_same),
        }
        if len(self.pairs) <= MOST_LISTED:
            drawn["pairs"] = listed_pairs(self.pairs, self.scores, self.accuracy, self.rule)
        return drawn

    def hardest(self, pictures: bool) -> dict[str, list[dict[str, Any]]]:
        """The genuine pairs with the lowest and the impostor pairs with the highest scores."""
        return hardest_pairs(self.pairs, self.scores, pictures)


@dataclass(frozen=True)
class Verification(ImageEvaluator):
    """An evaluator: `run` a network on a pair protocol.

    Attributes:
        name: of the protocol.
        pairs: the protocol.
        size: side of the images that the network takes, in pixels; others are resized.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
        fars: false-accept rates at which thresholds are computed.
        rule: how a fold takes its threshold from the others: a key of `PAIR_RULES`.
    """

    name: str
    pairs: Pairs = field(repr=False)
    size: int = 112
    flip: bool = True
    batch_size: int = 128
    fars: tuple[float, ...] = FARS
    rule: str = DEFAULT_RULE

    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> VerificationResult:
        """Embed every image of the protocol once and score its pairs.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.

        Raises:
            ValueError: an image cannot be read, embeddings are not finite, the network is in training mode.
        """
        pairs = self.pairs
        used, row = np.unique(np.concatenate([pairs.a, pairs.b]), return_inverse=True)
        sizes: Counter[str] = Counter()
        embedded = self._embedded(embed, pairs.images, used.tolist(), extraction, sizes=sizes)
        return verified(
            self.name,
            pairs,
            embedded.unit_ND,
            row,
            embedded,
            self.rule,
            flip=self.flip,
            size=self.size,
            fars=self.fars,
            sizes=sizes,
        )


def verified(
    name: str,
    pairs: Pairs,
    unit_UD: FloatArray,
    row_2N: IntArray,
    embedded: Embedded,
    rule: str,
    *,
    flip: bool,
    size: int,
    fars: Sequence[float] = FARS,
    sizes: Mapping[str, int] | None = None,
) -> VerificationResult:
    """Score pairs and compute the figures.

    Args:
        name: of the protocol.
        pairs: the N pairs.
        unit_UD: features of what is compared, rows of length 1.
        row_2N: row of the first side of each pair, then of the second.
        embedded: the images that the features were made of.
        rule: a key of `PAIR_RULES`.
        flip: whether the mirrored view was added.
        size: side of the images that the network took, pixels.
        fars: false-accept rates at which thresholds are computed.
        sizes: number of images by "WIDTHxHEIGHT".
    """
    in_pair_order_2ND = unit_UD[row_2N.reshape(2, -1).T.ravel()].astype(np.float64)
    scores = np.einsum("nd,nd->n", in_pair_order_2ND[0::2], in_pair_order_2ND[1::2])
    curve = roc(scores, pairs.is_same)
    accuracy = pair_accuracy(in_pair_order_2ND, pairs.is_same, rule, fold_ids=pairs.fold)
    by_count = sorted((sizes or {}).items(), key=lambda item: -item[1])
    return VerificationResult(
        name=name,
        pairs=pairs,
        scores=scores,
        accuracy=accuracy,
        rule=rule,
        curve=curve,
        points=points_of(pairs, scores, curve, fars),
        accuracy_interval=accuracy_interval(pairs, scores, accuracy, rule),
        people=people_of(pairs)[1],
        mean_norm=float(embedded.norm_N.mean()),
        num_images=len(embedded.norm_N),
        flip=flip,
        size=size,
        scaled={text: count for text, count in by_count if text != f"{size}x{size}"},
    )
