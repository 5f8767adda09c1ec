"""Says in words when a training looks wrong."""

import math
from collections.abc import Mapping

COLLAPSED = 0.9  # mean cosine between different images of a batch; a healthy net is far below


def diagnose(line: Mapping[str, float], num_ids: int, progress: float) -> str | None:
    """A sentence about what looks wrong, or None.

    Args:
        line: a line of the training log; read are ``loss``, ``target_cosine`` (mean cosine of an embedding to
            its own class centre), ``spread`` (mean cosine between embeddings of a batch; 1: all the same).
        num_ids: number of identities.
        progress: share of the run that is done.
    """
    loss, target_cosine, spread = line["loss"], line["target_cosine"], line["spread"]
    if spread > COLLAPSED:
        return (
            f"the embeddings look collapsed (mean cosine {spread:.2f} between different images): "
            "lower optim.lr, add head.margin.ramp, or check that the labels fit the images"
        )
    if progress > 0.3 and target_cosine < 0.1:
        return (
            f"images are hardly closer to their own class centre (cosine {target_cosine:.2f}) than to others "
            f"after {progress:.0%} of the run; loss {loss:.1f}, chance without margin is "
            f"ln {num_ids} = {math.log(num_ids):.1f}: optim.lr may be off, the margin too hard "
            "(head.margin.m), or labels wrong"
        )
    return None
