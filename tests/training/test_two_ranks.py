"""Two processes, joined by gloo, train as one does and act on one decision."""

import pytest
import torch
import torch.multiprocessing

from madbal_ray.engine.workers import SingleWorker
from tests.training import two_ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the two came to."""
    shared = tmp_path_factory.mktemp("two-ranks")
    torch.multiprocessing.spawn(two_ranks.exercise, (str(shared), str(shared)), nprocs=2)
    return [torch.load(shared / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_they_talk(ranks):
    for rank in ranks:
        assert rank["sum"] == 3.0
        assert rank["all"] == ["rank 0", "rank 1"]


def test_rank_0_alone_looks_and_both_hear_what_it_found(ranks):
    assert [rank["decided"] for rank in ranks] == ["said by 0", "said by 0"]
    assert [rank["looked"] for rank in ranks] == [[0], []]


def test_gradients_are_those_of_one_process_with_the_joint_batch(ranks, tmp_path):
    alone = two_ranks.train(
        tmp_path, SingleWorker(torch.device("cpu"), lambda progress: None), two_ranks.Joint
    )
    assert len(alone["losses"]) == 3
    for rank in ranks:
        assert rank["trained"]["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        for name, value in alone["weights"].items():
            torch.testing.assert_close(rank["trained"]["weights"][name], value)
    untrained = two_ranks.Convolution().state_dict()["backbone.weight"]
    assert (untrained - alone["weights"]["backbone.weight"]).abs().max() > 0.1


def test_each_decodes_its_own_images_once_in_three_epochs(ranks):
    assert [rank["trained"]["decoded"] for rank in ranks] == [4, 4]


def test_weights_that_no_loss_depends_on_do_not_matter(ranks):
    """The mean of the gradients 1 and 2 is 1.5, at rate 0.25, twice, from 1."""
    assert [rank["descended"] for rank in ranks] == [0.25, 0.25]


def test_both_measure_with_the_statistics_of_rank_0(ranks):
    assert [rank["statistics"] for rank in ranks] == [(5.0, 7), (5.0, 7)]


def test_both_go_on_from_the_checkpoint_that_rank_0_sees(ranks):
    for rank in ranks:
        assert rank["resumed"] == [(3, 7.0), (0, 1.0)]


def test_what_rank_0_sees_finished_is_trained_by_nobody_and_reaches_rank_1(ranks):
    for rank in ranks:
        assert rank["round"] == ((5.0, 6.0), ["evaluate"])
