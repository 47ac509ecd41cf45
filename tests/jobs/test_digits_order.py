"""The order of the data belongs to the run: any split into attempts and world sizes sees the same batches."""

import json

import numpy as np
import pytest
from heliostat_jobs.recipes import digits_data
from heliostat_jobs.recipes.digits_artifact import SIGNATURE
from heliostat_jobs.recipes.digits_data import BatchOrder, digest, load

ORDER = BatchOrder(images=1438, batch_size=48, seed=7)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_the_workers_shares_are_the_batch(world_size: int) -> None:
    for step in (0, 29, 30, 1234):
        shares = [ORDER.share(step, rank, world_size) for rank in range(world_size)]
        assert sorted(np.concatenate(shares)) == sorted(ORDER.batch(step))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_an_epoch_sees_no_image_twice() -> None:
    ids = np.concatenate([ORDER.batch(step) for step in range(ORDER.steps_per_epoch)])
    assert len(ids) == len(set(ids)) == ORDER.steps_per_epoch * ORDER.batch_size


def test_epochs_differ_and_a_step_is_always_the_same() -> None:
    assert digest(ORDER.batch(0)) != digest(ORDER.batch(ORDER.steps_per_epoch))
    assert digest(ORDER.batch(41)) == digest(BatchOrder(1438, 48, 7).batch(41))
    assert digest(ORDER.batch(41)) != digest(BatchOrder(1438, 48, 8).batch(41))


def test_the_split_is_seeded_and_disjoint() -> None:
    one, again, other = load(7), load(7), load(8)
    assert len(one.train_x) == 1438 and len(one.test_x) == 359
    assert np.array_equal(one.test_x, again.test_x) and not np.array_equal(one.test_y, other.test_y)
    assert one.train_x.shape[1:] == (1, 8, 8) and one.train_x.max() <= 1.0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--workers", "two"], "--workers"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--batch-size", "2000"], "between the number of workers"),
        (["--workers", "1-64"], "between the number of workers"),
        (["--look-every", "0"], "--look-every"),
    ],
)
def test_bad_options_of_the_recipe_are_named(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from heliostat_jobs.recipes.digits_cnn import arguments

    with pytest.raises(SystemExit):
        arguments(argv)
    assert words in capsys.readouterr().err


def test_workers_are_a_number_or_a_range() -> None:
    from heliostat_jobs.recipes.digits_cnn import TRAINING_IMAGES, arguments

    assert arguments(["--workers", "3"]).workers == 3 and arguments(["--workers", "1-4"]).workers == (1, 4)
    assert len(load(7).train_x) == TRAINING_IMAGES


def test_the_inputs_alone_are_what_an_endpoint_takes(capsys: pytest.CaptureFixture[str]) -> None:
    digits_data.main(["--first", "2", "--inputs"])
    told = json.loads(capsys.readouterr().out)
    assert list(told) == [tensor.name for tensor in SIGNATURE.inputs] and np.shape(told["images"])[0] == 2
