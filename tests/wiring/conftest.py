"""The toy network under a name that a config can give, and synthetic faces that are painted once."""

from collections.abc import Iterator
from functools import cache

import pytest

from facescale import backbones
from facescale.data.synthetic.faces import SyntheticFaces
from tests.wiring.toy import Toy


@pytest.fixture(scope="session", autouse=True)
def _toy_backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "toy", Toy)
        yield


@pytest.fixture(scope="session", autouse=True)
def _painted_once() -> Iterator[None]:
    """All trainings here look at the same few faces, which take longer to paint than to learn from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SyntheticFaces, "__getitem__", cache(SyntheticFaces.__getitem__))
        yield
