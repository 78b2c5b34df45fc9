"""The first of the three systems: the model is loaded once, before the loop, however many jobs come."""

from tests.world import World, versions

JOBS = 2_000


def test_a_model_is_loaded_once_for_any_number_of_jobs(world: World) -> None:
    world.put("plus", 1)
    process = world.start(PRELOAD="plus")
    assert len(process.events("model loaded")) == 1  # before the first job
    world.publish("plus", JOBS)
    assert versions(world.settle()) == [1] * JOBS
    world.publish("plus", JOBS)
    assert versions(world.settle()) == [1] * JOBS
    assert len(process.events("model loaded")) == 1
    assert process.stop() == 0
