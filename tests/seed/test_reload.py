"""The third of the three systems: newer versions are taken up, bad ones survived and waited on, and no job is lost."""

from datetime import UTC, datetime

from tests.replica import Replica, until
from tests.world import ANSWERS_S, World, versions


def loaded(process: Replica) -> list[str]:
    return [event["path"] for event in process.events("model loaded")]


def test_a_newer_version_is_taken_up_and_path_and_time_are_said(world: World) -> None:
    world.put("plus", 1)
    process = world.start(PRELOAD="plus")
    world.publish("plus", 50)
    assert versions(world.settle()) == [1] * 50
    before = datetime.now(UTC)
    world.put("plus", 2)
    while "plus/2/model.keras" not in loaded(process):
        world.publish("plus", 20)  # jobs flow while it is loaded beside
        assert set(versions(world.settle())) <= {1, 2}
    world.publish("plus", 50)
    until(lambda: len(process.events("served")) == 2, ANSWERS_S, "the swap")
    said = process.events("served")[-1]
    assert (said["path"], said["version_before"]) == ("plus/2/model.keras", 1)
    assert before <= datetime.fromisoformat(said["timestamp"]) <= datetime.now(UTC)
    answered = versions(world.settle())
    assert answered[-1] == 2
    assert process.stop() == 0


def test_a_corrupt_version_is_waited_on_and_taken_once_it_is_mended(world: World) -> None:
    world.put("plus", 1)
    process = world.start(PRELOAD="plus")
    folder = world.put_corrupt("plus", 2)
    until(lambda: process.events("load failed"), ANSWERS_S, "a failed load")
    said = process.events("load failed")[0]
    assert (said["model"], said["version"], said["reason"]) == ("plus", 2, "model-corrupt")
    world.publish("plus", 100)
    assert versions(world.settle()) == [1] * 100  # the old one goes on
    degraded = process.get("/readyz")
    assert degraded[0] == 200
    assert "version 2" in degraded[1]["degraded"][0]
    assert "version 1 serves" in degraded[1]["degraded"][0]
    world.mend(folder, 2)
    until(lambda: "plus/2/model.keras" in loaded(process), ANSWERS_S, "the mended version")
    world.publish("plus", 10)
    assert versions(world.settle())[-1] == 2
    until(lambda: not process.get("/readyz")[1]["degraded"], ANSWERS_S, "nothing degraded any more")
    assert process.stop() == 0


def test_a_version_that_is_withdrawn_falls_back_and_a_missing_one_says_so(world: World) -> None:
    world.put("plus", 1)
    newest = world.put("plus", 2)
    process = world.start(PRELOAD="plus")
    world.publish("plus", 10)
    assert versions(world.settle()) == [2] * 10
    newest.rename(world.store / ".withdrawn")
    assert process.get("/models")[1] is not None
    until(lambda: process.events("served")[-1]["version"] == 1, ANSWERS_S, "the fall back")
    world.publish("plus", 10)
    assert versions(world.settle()) == [1] * 10
    assert process.stop() == 0
