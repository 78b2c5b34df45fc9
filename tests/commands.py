"""`loadonce` as a user runs it: a process, with options in its environment."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from consumer.demo.processes import environment
from tests.disk_cache import DISK_CACHE

TIMEOUT_S = 60


def loadonce(
    *arguments: str, options: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one command; of this process's LOADONCE_* only `options`, without the prefix, reach it."""
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        env=environment({"DISK_CACHE": str(DISK_CACHE), **(options or {})}),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
