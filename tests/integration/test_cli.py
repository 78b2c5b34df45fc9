"""The commands against a real broker and a real `loadonce run`."""

import itertools
import json
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumer.demo.processes import environment, serving, wait_until_ready
from consumer.local import LocalKafka
from tests.commands import TIMEOUT_S, loadonce

PARTITIONS = 2
NOBODY_LISTENS = "127.0.0.1:1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with `double`, added as a user adds it, and `broken`, whose file is no model."""
    import keras

    folder = tmp_path_factory.mktemp("cli")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Rescaling(2.0, name="doubled")])
    model.save(folder / "double.keras")
    here = {"MODEL_STORE": str(folder / "models"), "DISK_CACHE": str(folder / "cache")}
    added = loadonce("models", "add", "double", str(folder / "double.keras"), options=here)
    assert added.returncode == 0, added.stderr
    broken = folder / "models" / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.keras").write_bytes(b"not a model")
    return folder / "models"


@pytest.fixture(scope="module")
def options(kafka: LocalKafka, store: Path) -> dict[str, str]:
    """A consumer's options, with topics of its own, made by `topics create`."""
    run = uuid.uuid4().hex[:8]
    options = {
        "BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "JOBS_TOPIC": f"cli-jobs-{run}",
        "PREDICTIONS_TOPIC": f"cli-predictions-{run}",
        "DEAD_LETTERS_TOPIC": f"cli-dead-letters-{run}",
        "GROUP_ID": f"cli-{run}",
        "MODEL_STORE": str(store),
        "DISK_CACHE": str(store.parent / "cache"),
        "PRELOAD": "double",
        "HTTP_PORT": "0",
        "LOG_FORMAT": "json",
    }
    done = loadonce("topics", "create", "--partitions", str(PARTITIONS), "--json", options=options)
    assert done.returncode == 0, done.stderr
    assert {topic["partitions"] for topic in json.loads(done.stdout).values()} == {PARTITIONS}
    assert all(topic["created"] for topic in json.loads(done.stdout).values())
    return options


@pytest.fixture(scope="module")
def consumer(options: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One `loadonce run`, ready; stopped by SIGTERM it exits with 0."""
    with serving(1, tmp_path_factory.mktemp("run"), options) as processes:
        wait_until_ready(processes, PARTITIONS)
        yield
        assert [process.stop() for process in processes] == [0]


def tail_until(count: int, wanted: Callable[[Any], bool], options: dict[str, str]) -> list[Any]:
    """The first `count` outcomes that are `wanted`: the topics hold those of other tests as well."""
    command = [sys.executable, "-m", "consumer", "tail", "--from-beginning", "--json"]
    with subprocess.Popen(command, env=environment(options), stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        limit = threading.Timer(TIMEOUT_S, tail.kill)
        limit.start()
        try:
            outcomes = (json.loads(line) for line in tail.stdout)
            return list(itertools.islice(filter(wanted, outcomes), count))
        finally:
            limit.cancel()
            tail.kill()


def test_topics_are_created_once(options: dict[str, str]) -> None:
    again = loadonce("topics", "create", "--partitions", "7", "--json", options=options)
    check = loadonce("topics", "check", "--json", options=options)

    assert (again.returncode, check.returncode) == (0, 0)
    assert again.stdout == check.stdout
    assert {topic["partitions"] for topic in json.loads(check.stdout).values()} == {PARTITIONS}
    assert not any(topic["created"] for topic in json.loads(check.stdout).values())


def test_models_from_the_command_line(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "models")
    here = {"MODEL_STORE": str(tmp_path / "models"), "HTTP_PORT": "0"}

    def listed() -> list[tuple[str, int, list[str], bool]]:
        done = loadonce("models", "list", "--json", options=here)
        versions = json.loads(done.stdout)["models"]
        return [(each["key"], each["version"], each["aliases"], each["has_manifest"]) for each in versions]

    assert listed() == [("broken", 1, [], False), ("double", 1, [], True)]
    assert loadonce("models", "alias", "double", "stable", "1", options=here).returncode == 0
    assert listed()[1] == ("double", 1, ["stable"], True)
    in_use = loadonce("models", "remove", "double", "1", options=here)
    assert (in_use.returncode, "stable" in in_use.stderr) == (65, True)
    assert loadonce("models", "alias", "double", "stable", "--remove", options=here).returncode == 0
    assert loadonce("models", "remove", "double", "1", options=here).returncode == 0
    assert listed() == [("broken", 1, [], False)]


@pytest.mark.parametrize(
    ("command", "code", "named"),
    [
        (["add", "../x", "double.keras"], 65, "../x"),
        (["add", "x", "nowhere.keras"], 66, "nowhere.keras"),
        (["alias", "double", "stable", "9"], 66, "9"),
        (["alias", "double", "stable"], 64, "VERSION"),
        (["remove", "nobody", "1"], 66, "nobody"),
    ],
)
def test_what_cannot_be_done_to_a_store(store: Path, command: list[str], code: int, named: str) -> None:
    done = loadonce("models", *command, options={"MODEL_STORE": str(store)}, cwd=store.parent)

    assert done.returncode == code
    assert named in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    done = loadonce("models", "list", options={"MODEL_STORE": "nowhere"}, cwd=tmp_path)

    assert done.returncode == 66
    assert "LOADONCE_MODEL_STORE=nowhere" in done.stderr


def test_verify_says_what_cannot_be_served(store: Path) -> None:
    here = {"MODEL_STORE": str(store), "DISK_CACHE": str(store.parent / "cache")}
    done = loadonce("models", "verify", "--json", options=here)

    assert done.returncode == 1
    results = {each["key"]: each["problem"] for each in json.loads(done.stdout)}
    assert results["double"] is None
    assert "not a .keras archive" in results["broken"]
    assert "broken/1" in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("consumer")
def test_predict_is_a_round_trip(options: dict[str, str]) -> None:
    done = loadonce("predict", "double", "--json", stdin="[[1, 2, 3], [4, 5, 6]]\n", options=options)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"model": "double", "outputs": {"doubled": [[2, 4, 6], [8, 10, 12]]}}


@pytest.mark.usefixtures("consumer")
def test_predict_in_json_and_for_a_person(options: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "row.npy", np.array([[1, 2, 3]], np.float32))
    done = loadonce("predict", "double", str(tmp_path / "row.npy"), "--encoding", "json", options=options)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "doubled [1, 3]\n[[2. 4. 6.]]\n"


@pytest.mark.usefixtures("consumer")
@pytest.mark.parametrize(
    ("model", "rows", "reason"),
    [
        ("double", "[[1, 2]]", "bad-input"),
        ("nobody", "[[1, 2, 3]]", "unknown-model"),
        ("broken", "[[1, 2, 3]]", "model-corrupt"),
    ],
)
def test_a_dead_letter_is_1_and_its_reason(options: dict[str, str], model: str, rows: str, reason: str) -> None:
    done = loadonce("predict", model, stdin=rows, options=options)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"loadonce: error: dead letter: {reason} ")


def test_no_answer_is_75(options: dict[str, str]) -> None:
    run = uuid.uuid4().hex[:8]
    alone = options | {
        role: f"{role.lower()}-{run}" for role in ("JOBS_TOPIC", "PREDICTIONS_TOPIC", "DEAD_LETTERS_TOPIC")
    }
    assert loadonce("topics", "create", options=alone).returncode == 0

    done = loadonce("predict", "double", "--timeout", "1", stdin="[[1, 2, 3]]", options=alone)

    assert done.returncode == 75
    assert "within 1 s" in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("consumer")
def test_what_is_published_is_seen_by_tail(options: dict[str, str], tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    np.save(tmp_path / "rows.npy", np.arange(15, dtype=np.float32).reshape(5, 3))
    published = loadonce(
        "publish",
        "double",
        str(tmp_path / "rows.npy"),
        "--rows-per-job",
        "2",
        "--correlation-id",
        name,
        "--json",
        options=options,
    )
    failing = loadonce(
        "publish", "nobody", "--correlation-id", name, "--header", "team=a", stdin="[[1]]", options=options
    )

    assert published.returncode == 0, published.stderr
    assert [job["correlation_id"] for job in json.loads(published.stdout)] == [f"{name}-{n}" for n in (1, 2, 3)]
    assert failing.stdout == f"published 1 job to {options['JOBS_TOPIC']}\n"
    wanted = {job["position"] for job in json.loads(published.stdout)}
    mine = tail_until(4, lambda outcome: (outcome["correlation_id"] or "").startswith(name), options)
    predictions = [outcome for outcome in mine if outcome["kind"] == "prediction"]
    assert {outcome["position"] for outcome in predictions} == wanted
    assert sorted(row for outcome in predictions for row in outcome["outputs"]["doubled"]) == [
        [0, 2, 4],
        [6, 8, 10],
        [12, 14, 16],
        [18, 20, 22],
        [24, 26, 28],
    ]
    [dead] = [outcome for outcome in mine if outcome["kind"] == "dead letter"]
    assert dead["reason"] == "unknown-model"


@pytest.mark.usefixtures("consumer")
def test_tail_stops_after_so_many_and_says_when_they_do_not_come(options: dict[str, str]) -> None:
    assert loadonce("predict", "double", stdin="[[1, 2, 3]]", options=options).returncode == 0

    enough = loadonce("tail", "--from-beginning", "--max-messages", "1", options=options)
    too_few = loadonce("tail", "--max-messages", "1", "--timeout", "1", options=options)

    assert enough.returncode == 0
    assert len(enough.stdout.splitlines()) == 1
    assert too_few.returncode == 75
    assert "0 of 1" in too_few.stderr.splitlines()[-1]


NO_BROKER = {"BOOTSTRAP_SERVERS": NOBODY_LISTENS}
REFUSED = [
    (["run"], NO_BROKER, 69, f"LOADONCE_BOOTSTRAP_SERVERS={NOBODY_LISTENS}"),
    (["run"], {"MODEL_STORE": "nowhere"}, 66, "LOADONCE_MODEL_STORE=nowhere"),
    (["run"], {"DELIVERY": "twice"}, 78, "LOADONCE_DELIVERY=twice"),
    (["run"], {"DELIVRY": "at-least-once"}, 78, "LOADONCE_DELIVRY: no such option"),
    (["run"], {"JOBS_TOPIC": "nowhere"}, 69, "LOADONCE_JOBS_TOPIC=nowhere"),
    (["run"], {"PRELOAD": "nobody"}, 78, "LOADONCE_PRELOAD=nobody"),
    (["run"], {"PRELOAD": "double,broken"}, 78, "LOADONCE_PRELOAD=double,broken"),
    (["publish", "double"], NO_BROKER, 69, f"LOADONCE_BOOTSTRAP_SERVERS={NOBODY_LISTENS}"),
    (["publish", "double"], {"JOBS_TOPIC": "nowhere"}, 69, "nowhere; `loadonce topics create`"),
    (["predict", "double"], NO_BROKER, 69, f"LOADONCE_BOOTSTRAP_SERVERS={NOBODY_LISTENS}"),
    (["tail"], NO_BROKER, 69, f"LOADONCE_BOOTSTRAP_SERVERS={NOBODY_LISTENS}"),
    (["tail"], {"PREDICTIONS_TOPIC": "nowhere"}, 69, "nowhere; `loadonce topics create`"),
    (["topics", "check"], NO_BROKER, 69, f"LOADONCE_BOOTSTRAP_SERVERS={NOBODY_LISTENS}"),
]


@pytest.fixture(scope="module")
def refused(options: dict[str, str]) -> list[Future[subprocess.CompletedProcess[str]]]:
    """Every command of REFUSED, all at once: most of them only wait for a broker that is not there."""
    with ThreadPoolExecutor(4) as pool:
        return [
            pool.submit(loadonce, *command, stdin="[[1, 2, 3]]", options=options | change)
            for command, change, _, _ in REFUSED
        ]


@pytest.mark.parametrize(
    ("number", "code", "named"),
    [
        pytest.param(number, code, named, id=f"{' '.join(command)} {' '.join(change.values())}")
        for number, (command, change, code, named) in enumerate(REFUSED)
    ],
)
def test_what_cannot_work_ends_in_one_line(
    refused: list[Future[subprocess.CompletedProcess[str]]], number: int, code: int, named: str
) -> None:
    done = refused[number].result()

    assert done.returncode == code
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("loadonce: error: ")
    assert named in last
    assert "Traceback" not in done.stderr


def test_what_cannot_be_a_job_is_65(options: dict[str, str]) -> None:
    done = loadonce("publish", "../models", stdin="[[1, 2, 3]]", options=options)

    assert done.returncode == 65
    assert "model-key" in done.stderr.splitlines()[-1]
