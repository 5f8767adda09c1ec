"""Samplers whose items hold several images: a query with keys (AttFC), identity and instance pairs (F2C)."""

from facescale.arrays import IntArray
from facescale.data.sampling.attention import AttentionSampler, ReleasedAttentionSampler
from facescale.data.sampling.base import ImageSampler, Sampler
from facescale.data.sampling.draws import NOT_FORWARD, Draws, EveryImage, InWindows
from facescale.data.sampling.pairs import PairSampler

# V views, B items, N images, P identities


def make_sampler(
    ids: IntArray,
    seed: int,
    *,
    keys: int = 0,
    identity_pairs: bool = False,
    released: bool = False,
    draws: Draws | None = None,
) -> Sampler:
    """The sampler that gives what a head needs (``heads.Needs``).

    Args:
        ids: identity of every image.
        seed: of everything drawn.
        keys: images of the identity beside each query.
        identity_pairs: identity and instance pairs instead.
        released: draw query and keys as AttFC's release does.
        draws: the order of an epoch; every image once, if absent.

    Raises:
        ValueError: an order together with that of AttFC's release; several views of a stream.
    """
    if isinstance(draws, InWindows) and (keys or identity_pairs):
        raise ValueError(f"this head takes several images of an identity together, {NOT_FORWARD}")
    if identity_pairs:
        return PairSampler(ids, seed, draws)
    if not keys:
        return ImageSampler(len(ids), seed, draws)
    if not released:
        return AttentionSampler(ids, keys, seed, draws)
    if draws is not None and not isinstance(draws, EveryImage):
        raise ValueError(
            "the order of AttFC's release draws any image; remove data.sampling and data.weights, or the"
            " head's compat"
        )
    return ReleasedAttentionSampler(ids, keys, seed)
