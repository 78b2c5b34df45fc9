"""Which versions answer jobs that name none, and which stay loaded."""

from pathlib import Path

import pytest

from consumer.models.policy import Policies, Policy, served
from consumer.models.store import Located, ModelEntry


def entry(*versions: int, **aliases: int) -> ModelEntry:
    return ModelEntry({version: Located("m", version, Path(), (), (), None) for version in versions}, aliases)


@pytest.mark.parametrize(
    ("policy", "candidates", "kept"),
    [
        ("latest", [10, 3, 1], [10]),
        ("latest:2", [10, 3, 1], [10, 3]),
        ("latest:9", [10, 3, 1], [10, 3, 1]),
        ("all", [10, 3, 1], [10, 3, 1]),
        ("pinned:3", [3], [3]),
        ("pinned:4", [], []),
        ("stable", [1], [1]),
        ("canary", [], []),
        ("none", [], []),
    ],
)
def test_a_policy_chooses(policy: str, candidates: list[int], kept: list[int]) -> None:
    chosen = Policy.parse(policy)
    have = entry(1, 3, 10, stable=1, canary=7)
    assert chosen.candidates(have) == candidates
    assert chosen.kept(have) == kept
    assert str(chosen) == policy


@pytest.mark.parametrize(
    "text", ["", "latest:0", "latest:", "latest:-1", "pinned", "pinned:x", "a b", "1", "latest:99999"]
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a policy is"):
        Policy.parse(text)


def test_a_model_has_its_own_policy_or_the_default() -> None:
    policies = Policies.parse(["latest:2", "digits=pinned:3", "wine=stable"])
    assert str(policies.of("digits")) == "pinned:3"
    assert str(policies.of("wine")) == "stable"
    assert str(policies.of("other")) == "latest:2"
    assert str(Policies.parse([]).of("other")) == "latest"
    with pytest.raises(ValueError, match="'a/b' is not a model's name"):
        Policies.parse(["a/b=all"])


def test_why_a_version_is_served() -> None:
    assert served(entry(1, 2, 3, stable=1, gone=9), Policy.parse("latest:2")) == {
        3: "latest:2, answers jobs that name no version",
        2: "latest:2",
        1: "alias stable",
    }
