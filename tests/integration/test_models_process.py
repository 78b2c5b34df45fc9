"""What needs a process of its own: limits of the operating system, and what TensorFlow prints."""

import os
import subprocess
import sys
from pathlib import Path

from tests import models_zoo as zoo

TOO_MANY_OPEN_FILES = """
import resource, sys
from pathlib import Path
from consumer.models.opening import Opener, OpenOptions
from tests.models_zoo import Told
from tests.serving import serving

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

class Mending(Told):
    def load_attempt_failed(self, *what):
        super().load_attempt_failed(*what)
        if self.count("attempt") == 2:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

told = Mending()
opener = Opener(OpenOptions(frozenset(), 1 << 30), Path(sys.argv[2]), 1 << 30)
serving = serving(
    Path(sys.argv[1]), opener, told, poll_s=3600, cache_models=9, load_attempts=5, load_backoff_max_s=1
)
serving.preload(["first"], 120)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
serving.preload(["second"], 120)
attempts = [event for event in told.events if event[0] in ("attempt", "loaded")]
print([event[:4] for event in attempts])
print(attempts[1][4])
serving.close(10)
opener.close(10)
"""

QUIET = """
import sys, threading
import numpy as np
from pathlib import Path
from consumer.models.opening import Opener, OpenOptions
from consumer.models.store import locate

opener = Opener(OpenOptions(frozenset(), 1 << 30), Path(sys.argv[2]), 1 << 30)
for format_ in ("keras", "h5", "savedmodel"):
    loaded = opener.open(locate(Path(sys.argv[1], format_, "1"), format_, 1), threading.Event())
    inputs = {"image": np.zeros((1, 2), np.float32), "token": np.zeros((1, 3), np.int32)}
    print(loaded.format, sorted(loaded.predict(inputs)))
opener.close(10)
print("tensorflow" in sys.modules or "keras" in sys.modules)
"""


def run(code: str, store: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    return subprocess.run(
        [sys.executable, "-c", code, str(store), str(cache)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


def test_too_many_open_files_pass(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for key in ("first", "second"):
        zoo.put(zoo.sequential(), store, key, 1, "keras")
    result = run(TOO_MANY_OPEN_FILES, store, tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    events, error = result.stdout.splitlines()
    assert events == str(
        [("loaded", "first", 1), ("attempt", "second", 1, 1), ("attempt", "second", 1, 2), ("loaded", "second", 1)]
    )
    assert "Too many open files" in error
    assert str(tmp_path) not in error


def test_a_newcomer_sees_nothing_of_tensorflow_which_this_process_never_imports(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for format_ in ("keras", "h5", "savedmodel"):
        zoo.put(zoo.two_by_two(), store, format_, 1, format_)
    result = run(QUIET, store, tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        *(f"{name} ['echo', 'total']" for name in ("keras", "h5", "savedmodel")),
        "False",
    ]
    assert result.stderr == ""
