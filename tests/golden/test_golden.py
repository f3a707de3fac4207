"""The artefacts of every stage are, to the last bit, what they were."""

import json

import pytest

from tests.golden.cases import CASES
from tests.golden.workshop import DIGESTS, Workshop, machine

pytestmark = pytest.mark.slow

RECORDED = json.loads(DIGESTS.read_text(encoding="utf-8"))
MISSING = "nothing"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    here = machine()
    if here != RECORDED["machine"]:
        pytest.skip(f"the digests are of {RECORDED['machine']}, this is {here}")
    return Workshop(tmp_path_factory.mktemp("golden"))


def flat(artefacts):
    return {
        f"{path} {part}": value
        for path, parts in artefacts.items()
        for part, value in parts.items()
    }


def test_every_case_is_recorded():
    assert set(RECORDED["cases"]) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_artefacts_are_what_they_were(name, workshop):
    before, now = flat(RECORDED["cases"][name]), flat(workshop.digests(name))
    changed = {
        part: f"{before.get(part, MISSING)} -> {now.get(part, MISSING)}"
        for part in sorted({*before, *now})
        if before.get(part) != now.get(part)
    }
    assert not changed, json.dumps(changed, indent=1, ensure_ascii=False)
