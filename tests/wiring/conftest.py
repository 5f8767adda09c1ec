"""The toy network under a name that a config can give."""

from collections.abc import Iterator

import pytest

from facescale import backbones
from tests.wiring.toy import Toy


@pytest.fixture(scope="session", autouse=True)
def _toy_backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "toy", Toy)
        yield
