"""Which versions of a model answer the jobs that name none, and which stay loaded beside the one that does.

Whatever the policy, a job that names a version or an alias gets that one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from consumer.models.store import ALIAS, NAME, VERSION, ModelEntry

LATEST: Final = "latest"
ALL: Final = "all"
PINNED: Final = "pinned"

_MANY = re.compile("latest:([1-9][0-9]{0,3})")
_PINNED = re.compile(f"pinned:({VERSION.pattern})")


@dataclass(frozen=True, slots=True)
class Policy:
    """`latest`, `latest:N`, `all`, `pinned:VERSION`, or an alias.

    The highest version that loads answers, and until it has loaded, one that is; the N highest, or all, stay loaded
    where there is room that nobody else needs. Pinned, or by alias, that version answers and no other; an alias that
    moves to what is not there or does not load leaves the version that it was, evicted or not.
    """

    kind: Literal["latest", "all", "pinned", "alias"] = LATEST
    count: int = 1
    version: int = 0
    alias: str = ""

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """ValueError says what a policy is."""
        if text == LATEST:
            return cls()
        if text == ALL:
            return cls(ALL)
        if match := _MANY.fullmatch(text):
            return cls(LATEST, count=int(match[1]))
        if match := _PINNED.fullmatch(text):
            return cls(PINNED, version=int(match[1]))
        if ALIAS.fullmatch(text) and text != PINNED:
            return cls("alias", alias=text)
        raise ValueError("a policy is latest, latest:N, all, pinned:VERSION or an alias")

    def candidates(self, entry: ModelEntry) -> list[int]:
        """The versions that may answer jobs that name none, the best first."""
        if self.kind in (LATEST, ALL):
            return entry.newest_first
        version = self.version if self.kind == PINNED else entry.aliases.get(self.alias)
        return [version] if version is not None and version in entry.versions else []

    def kept(self, entry: ModelEntry) -> list[int]:
        """The versions that stay loaded, the best first."""
        candidates = self.candidates(entry)
        return candidates if self.kind == ALL else candidates[: self.count]

    def names_none(self, entry: ModelEntry) -> bool:
        """Whether jobs that name no version have none any more, although the one that answered is still there."""
        return self.kind == "alias" and self.alias not in entry.aliases

    def __str__(self) -> str:
        """As it is written in the option."""
        if self.kind == PINNED:
            return f"pinned:{self.version}"
        if self.kind == "alias":
            return self.alias
        return f"latest:{self.count}" if self.count > 1 else self.kind


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy of each model."""

    default: Policy = Policy()
    by_model: Mapping[str, Policy] = field(default_factory=dict)

    @classmethod
    def parse(cls, parts: Iterable[str]) -> "Policies":
        """`POLICY` for all models, `MODEL=POLICY` for one. ValueError."""
        default = Policy()
        by_model: dict[str, Policy] = {}
        for part in parts:
            name, named, policy = part.rpartition("=")
            if not named:
                default = Policy.parse(part)
            elif not NAME.fullmatch(name):
                raise ValueError(f"'{name}' is not a model's name")
            else:
                by_model[name] = Policy.parse(policy)
        return cls(default, by_model)

    def of(self, key: str) -> Policy:
        """The model's own, or the default."""
        return self.by_model.get(key, self.default)


def served(entry: ModelEntry, policy: Policy) -> dict[int, str]:
    """The versions that jobs can be sure to be answered by, and why: for people, from the store alone."""
    why: dict[int, list[str]] = {}
    # What is refused cannot load; what else cannot is not to be seen from here.
    loadable = replace(entry, versions={at: located for at, located in entry.versions.items() if not located.refusal})
    for place, version in enumerate(policy.kept(loadable)):
        why[version] = [f"{policy}, answers jobs that name no version" if place == 0 else str(policy)]
    for alias, version in sorted(entry.aliases.items()):
        if version in loadable.versions:
            why.setdefault(version, []).append(f"alias {alias}")
    return {version: "; ".join(reasons) for version, reasons in why.items()}
