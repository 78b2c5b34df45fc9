"""The second of the three systems: models chosen at run time, loaded on first need, cached; a missing one skipped."""

from schemas import DeadLetter, Reason
from tests.replica import until
from tests.world import ANSWERS_S, World, versions


def test_models_are_loaded_on_first_need_and_kept(world: World) -> None:
    world.put("first", 1)
    world.put("second", 2)
    process = world.start()
    assert process.events("model loaded") == []
    for model, version in (("first", 1), ("second", 2), ("first", 1), ("second", 2)):
        world.publish(model, 10)
        assert versions(world.settle()) == [version] * 10
    assert [event["model"] for event in process.events("model loaded")] == ["first", "second"]
    assert process.stop() == 0


def test_a_missing_model_is_skipped_with_an_error_said_and_the_loop_goes_on(world: World) -> None:
    world.put("first", 1)
    process = world.start(PRELOAD="first")
    world.publish("first", 5)
    world.publish("missing", 5)
    world.publish("first", 5)
    outcomes = world.settle()
    dead = [outcome for outcome in outcomes if isinstance(outcome, DeadLetter)]
    assert [(outcome.reason, outcome.message) for outcome in dead] == [
        (Reason.UNKNOWN_MODEL, "the store has no model 'missing'")
    ] * 5
    assert versions([outcome for outcome in outcomes if outcome not in dead]) == [1] * 10
    until(lambda: process.events("dead letters"), ANSWERS_S, "the error in the log")
    [said] = process.events("dead letters")
    assert (said["level"], said["reason"], said["count"]) == ("error", "unknown-model", 5)
    assert process.stop() == 0
