"""One sandbox for all tests of this folder: the strongest that holds here."""

import pytest

from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Services


@pytest.fixture(scope="session")
def sandbox():
    with_two = LocalSandbox(SandboxSettings(parallel=2))
    if (reason := with_two.why_not()) is not None:
        pytest.skip(f"no sandbox holds here: {reason}")
    yield with_two
    with_two.close()


@pytest.fixture(scope="session")
def services(sandbox):
    return Services(sandbox=sandbox)
