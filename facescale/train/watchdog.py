"""Recognise a training that goes wrong: from a line of its log, from its weights."""

import math
from collections.abc import Mapping

COLLAPSED = 0.9  # mean cosine between different images of a batch; far lower in a healthy training
# What to do after a training has diverged
ADVICE = (
    "lower optim.lr, lengthen optim.warmup, or use train.precision=fp32 in a new run; or continue this one "
    "with --set train.roll_back_after=5, which goes back to its last good checkpoint with a lower rate"
)


class TrainingError(RuntimeError):
    """The training cannot go on; the message says why and what to do. The last checkpoint stays usable."""


def diagnose(line: Mapping[str, float], num_ids: int, progress: float) -> str | None:
    """One sentence on what looks wrong and what to change, or None.

    Args:
        line: a line of the training log, with ``loss``, ``target_cosine`` (mean cosine of an embedding to its
            class centre) and ``spread`` (mean cosine between embeddings of a batch; 1: all the same).
        num_ids: number of identities.
        progress: share of the run done, 0 to 1.
    """
    loss, target_cosine, spread = line["loss"], line["target_cosine"], line["spread"]
    if spread > COLLAPSED:
        return (
            f"the embeddings look collapsed (mean cosine {spread:.2f} between different images): "
            "lower optim.lr, add head.margin.ramp, or check that the labels fit the images"
        )
    if progress > 0.3 and target_cosine < 0.1:
        return (
            f"after {progress:.0%} of the run the mean cosine of an image to its class centre is only "
            f"{target_cosine:.2f}; loss {loss:.1f}, chance without margin is ln {num_ids} = "
            f"{math.log(num_ids):.1f}: change optim.lr, lower head.margin.m, or check the labels"
        )
    return None
