"""What jobs wait for that the store, as far as is known, does not have: a look that begins after the question."""

from collections.abc import Callable
from dataclasses import dataclass

from consumer.models.policy import Policies, Policy
from consumer.models.store import Catalog, ModelEntry
from schemas.reasons import Failure, Reason, Stage

LOOK_TIMEOUT_S = 30.0
"""A store that has not answered for this long is unavailable to the jobs that wait for it."""

What = tuple[str, int | None, str | None]
"""What a job asks for: model, version, alias."""


@dataclass(slots=True)
class _Wait:
    """Jobs waiting for a look at the store; `failure` is there once the look is."""

    ticket: int
    deadline: float
    asked: int = 0
    patient: bool = True
    failure: Failure | None = None


class Waits:
    """Questions that only the next look can answer. `ask` gives the number of a look that begins after the call."""

    def __init__(self, ask: Callable[[], int], clock: Callable[[], float], policies: Policies) -> None:
        self._ask = ask
        self._clock = clock
        self._policies = policies
        self._waits: dict[What, _Wait] = {}

    def absent(self, what: What) -> Failure | None:
        """Not in the store, as far as is known: None until a look that begins after the question has told."""
        wait = self._waits.get(what)
        if wait is not None and wait.failure is not None:
            # The jobs that were parked for this look come back one by one; who comes later needs a look of his own.
            wait.asked -= 1
            if wait.asked <= 0:
                del self._waits[what]
            return wait.failure
        ticket = self._ask()
        if wait is None:
            wait = self._waits[what] = _Wait(ticket, self._clock() + LOOK_TIMEOUT_S)
        if ticket == wait.ticket:
            wait.asked += 1
        return None

    def forget_answered(self) -> None:
        """Those who were told have had their chance to ask again."""
        if self._waits:
            self._waits = {what: wait for what, wait in self._waits.items() if wait.failure is None}

    def looked(self, number: int, catalog: Catalog, changed: set[str]) -> None:
        """A look has ended: names whose questions it answers are added to `changed`."""
        for what, wait in list(self._waits.items()):
            policy = self._policies.of(what[0])
            if is_present(what, catalog, policy):
                del self._waits[what]
                changed.add(what[0])
            elif wait.failure is None and wait.ticket <= number:
                if wait.patient and _is_settling(what, catalog, policy):
                    wait.patient = False  # two equal looks settle a version; this was the first
                    wait.ticket = self._ask()
                else:
                    wait.failure = absence(what, catalog, policy)
                    changed.add(what[0])

    def expire(self, now: float, changed: set[str]) -> None:
        """Give up on a store that does not answer."""
        for what, wait in self._waits.items():
            if wait.failure is None and now >= wait.deadline:
                text = f"the model store has not answered for {LOOK_TIMEOUT_S:g} s"
                wait.failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, text)
                changed.add(what[0])


def is_present(what: What, catalog: Catalog, policy: Policy) -> bool:
    """Whether the store has a version that may answer."""
    key, version, alias = what
    entry = catalog.models.get(key)
    if entry is None:
        return False
    if version is None and alias is None:
        return bool(policy.candidates(entry))
    return _wanted(entry, version, alias) in entry.versions


def absence(what: What, catalog: Catalog, policy: Policy) -> Failure:
    """Why no version of the store answers."""
    key, version, alias = what
    entry = catalog.models.get(key)
    if catalog.problem or (entry and entry.unreadable):
        return Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, f"the store cannot be read where model '{key}' is")
    if entry is None:
        return Failure(Reason.UNKNOWN_MODEL, Stage.ROUTE, f"the store has no model '{key}'")
    wanted = _wanted(entry, version, alias)
    if alias is not None and wanted is None:
        text = f"model '{key}' has no alias '{alias}'"
    elif wanted in entry.settling:
        text = f"the store does not have all files of version {wanted} of model '{key}' yet"
    elif alias is not None:
        text = f"alias '{alias}' of model '{key}' is version {wanted}, which the store does not have"
    elif version is not None:
        text = f"model '{key}' has no version {version}"
    elif entry.versions:
        text = f"model '{key}' has no version that its policy, {policy}, allows"
    else:
        text = f"model '{key}' has no version"
    return Failure(Reason.UNKNOWN_VERSION, Stage.ROUTE, text)


def _wanted(entry: ModelEntry, version: int | None, alias: str | None) -> int | None:
    return version if alias is None else entry.aliases.get(alias)


def _is_settling(what: What, catalog: Catalog, policy: Policy) -> bool:
    key, version, alias = what
    entry = catalog.models.get(key)
    if entry is None:
        return False
    wanted = _wanted(entry, version, alias)
    if wanted is None and policy.kind == "pinned":
        wanted = policy.version
    elif wanted is None and policy.kind == "alias":
        wanted = entry.aliases.get(policy.alias)
    return bool(entry.moving) if wanted is None else wanted in entry.moving
