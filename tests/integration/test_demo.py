"""The demo, as `make demo` runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 230


def test_every_number_adds_up(tmp_path: Path) -> None:
    # Options of the shell must not lead the demo to another broker.
    env = os.environ | {
        "LOADONCE_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "LOADONCE_JOBS_TOPIC": "elsewhere",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "demo", "--json"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert [(model["model"], model["format"]) for model in report["models"]] == [
        ("digits", "keras"),
        ("breast-cancer", "h5"),
        ("wine", "savedmodel"),
    ]
    for model in report["models"]:
        assert model["jobs"] == model["predictions"] > 50
        assert model["dead_letters"] == model["different_answers"] == 0
        assert model["accuracy"] == model["direct_accuracy"] > 0.85
        assert model["p99_ms"] >= model["p50_ms"] > 0
    assert report["jobs"] == report["predictions"] + report["dead_letters"]
    assert {(failed["expected"], failed["reason"]) for failed in report["failed"]} == {
        (reason, reason) for reason in ("unknown-model", "bad-input", "bad-body")
    }
    assert all(failed["message"] for failed in report["failed"])
    once = {"digits": 1, "breast-cancer": 1, "wine": 1}
    assert report["loads"] == {"consumer-1": once, "consumer-2": once}
    assert report["exit_codes"] == {"consumer-1": 0, "consumer-2": 0}
    assert list(tmp_path.iterdir()) == [], "the demo leaves nothing behind"
