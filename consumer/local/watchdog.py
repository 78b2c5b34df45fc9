"""Ends a cluster's brokers, and removes their data, when the process that started them has died.

Run as a script, `watchdog.py <parent pid> [<folder to remove>]`, in a process group of its own that the brokers are put
into, with the read end of a pipe as standard input whose write end only the parent holds.

Why this and not `PR_SET_PDEATHSIG`: that signal is sent when the parent *thread* ends, is Linux only, and has to be
set between fork and exec, where Python may not run safely beside other threads. A pipe reports the parent's death
however it dies, and a process group knows every broker without a list that could be out of date when the parent dies.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

_LOOK_S = 1.0  # a fork of the parent may hold the pipe open; then the changed parent's pid tells
_REMOVE_S = 10.0


def main(arguments: list[str]) -> None:
    """Wait for the parent's end, then clear up. Killed by the parent where all ended well."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # sent to a group that lost its parent while a broker was paused
    parent, folder = int(arguments[0]), arguments[1:]
    while os.getppid() == parent and not select.select([sys.stdin], [], [], _LOOK_S)[0]:
        pass
    group = os.getpgrp()
    if os.fork() == 0:  # the child leaves the group, so that it outlives the killing of it
        os.setpgid(0, 0)
        deadline = time.monotonic() + _REMOVE_S
        _kill(group)
        for path in map(Path, folder):
            while path.exists() and time.monotonic() < deadline:  # a dying broker may still be writing
                shutil.rmtree(path, ignore_errors=True)
                time.sleep(0.05)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
