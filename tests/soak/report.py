"""The ledger as it is printed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.soak.ledger import Ledger, Problems


@dataclass(frozen=True, slots=True)
class Run:
    """What a soak was, beside its ledger."""

    delivery: str
    seed: int
    minutes: float
    published: int
    done: Mapping[str, int]  # by kind of chaos
    ended: Mapping[str, int]  # by how replicas ended
    said: Mapping[str, int]  # by what replicas warned of
    longest_pause_s: float
    paused_at_s: float
    settled_s: float
    served: Iterable[int]
    corrupt: Iterable[int]


def report(run: Run, ledger: Ledger, problems: Iterable[Problems]) -> tuple[str, bool]:
    """The text, and whether all adds up: published = predictions + dead letters, and nothing else is wrong."""
    predictions, dead = ledger.predictions.total(), ledger.dead_letters.total()
    kinds: dict[str, tuple[int, list[str]]] = {}
    for some in problems:
        for kind, count in some.counts.items():
            before, examples = kinds.get(kind, (0, []))
            kinds[kind] = before + count, examples + some.examples[kind]
    adds_up = run.published + ledger.published_twice == predictions + dead and not kinds
    lines = [
        f"soak: {run.delivery}, {run.minutes:g} minutes, seed {run.seed}",
        f"  published        {run.published:>9,}",
        f"  + a second time  {ledger.published_twice:>9,}   by the publisher's client",
        f"  = predictions    {predictions:>9,}   {_each(ledger.predictions)}",
        f"  + dead letters   {dead:>9,}   {_each(ledger.dead_letters)}",
        f"  duplicates       {ledger.duplicates:>9,}",
        f"  versions that answered: {_each(ledger.versions)}",
        f"  served: {_list(run.served)}; corrupt, and never served: {_list(run.corrupt)}",
        f"  done to it: {_each(run.done)}",
        f"  replicas ended: {_each(run.ended)}",
        f"  replicas warned: {_each(run.said)}",
        f"  longest time without any answer: {run.longest_pause_s:.1f} s, until {run.paused_at_s:.0f} s",
        f"  longest time from a job to its answer: {ledger.longest_wait_ms / 1000:.1f} s",
        f"  all answered {run.settled_s:.1f} s after the end",
    ]
    for kind, (count, examples) in kinds.items():
        lines.append(f"  WRONG: {kind}, {count}:")
        lines += [f"    {example}" for example in examples]
    lines.append("it adds up" if adds_up else "IT DOES NOT ADD UP")
    return "\n".join(lines), adds_up


def _each(counts: Mapping[object, int] | Mapping[str, int] | Mapping[int, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items()) or "none"


def _list(versions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(versions))) or "none"
