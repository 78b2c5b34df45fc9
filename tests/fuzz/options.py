"""How much is mutated, and from where: `make fuzz` says it in the environment, `make test` takes a small fixed part."""

import os
import sys
from random import SystemRandom
from typing import Final

_GIVEN: Final = os.environ.get("FUZZ_SEED", "5")
SEED: Final = SystemRandom().randrange(1 << 31) if _GIVEN == "random" else int(_GIVEN)
FIRST: Final = int(os.environ.get("FUZZ_FROM", "0"))
RECORDS: Final = int(os.environ.get("FUZZ_RECORDS", "10000"))
BROKER_RECORDS: Final = int(os.environ.get("FUZZ_BROKER_RECORDS", "2000"))


def tell(text: str) -> None:
    """A line for who runs it; pytest shows it with `-s`, and with a failure."""
    sys.stdout.write(f"\n{text}\n")
