"""Samplers whose items hold several images: a query with keys (AttFC), identity and instance pairs (F2C)."""

from facescale.arrays import IntArray
from facescale.data.sampling.attention import AttentionSampler, ReleasedAttentionSampler
from facescale.data.sampling.base import ImageSampler, Sampler
from facescale.data.sampling.pairs import PairSampler

# V views, B items, N images, P identities


def make_sampler(
    ids: IntArray,
    seed: int,
    *,
    keys: int = 0,
    identity_pairs: bool = False,
    released: bool = False,
) -> Sampler:
    """The sampler that gives what a head needs (``heads.Needs``).

    Args:
        ids: identity of every image.
        seed: of everything drawn.
        keys: images of the identity beside each query.
        identity_pairs: identity and instance pairs instead.
        released: draw query and keys as AttFC's release does.
    """
    if identity_pairs:
        return PairSampler(ids, seed)
    if keys:
        return (ReleasedAttentionSampler if released else AttentionSampler)(ids, keys, seed)
    return ImageSampler(len(ids), seed)
