"""Errors travel between processes as JSON and come back as what they were."""

import copy
import json
import pickle

import pytest

from madbal_ray import errors
from madbal_ray.errors import AnswersPending, BadImageError, MadbalError, StageError


def every_class(base=MadbalError):
    found = {base} if base.__module__ == errors.__name__ else set()
    return found.union(*(every_class(child) for child in base.__subclasses__()))


CLASSES = sorted(every_class(), key=lambda one: one.__name__)


def made(kind):
    return kind("what was got", 7) if kind is AnswersPending else kind("what was got")


def test_every_class_is_looked_at():
    assert {kind.__name__ for kind in CLASSES} == {
        "AnswersPending",
        "BadImageError",
        "ConfigError",
        "DataError",
        "IntegrityError",
        "LabelError",
        "LockedError",
        "MadbalError",
        "NumericalError",
        "PoolError",
        "ResourceError",
        "RunDirError",
        "ShapeError",
        "StageError",
    }


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_comes_back_from_json_as_it_was(kind):
    found = errors.unpack(json.loads(json.dumps(errors.pack(made(kind)))))
    assert type(found) is kind
    assert str(found) == "what was got"
    assert found.args == made(kind).args
    assert vars(found) == vars(made(kind))


@pytest.mark.parametrize("copied", [copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
def test_awaited_answers_keep_their_number_in_another_process(copied):
    found = copied(AnswersPending("ada is awaited", 7))
    assert (str(found), found.count) == ("ada is awaited", 7)


def test_a_bad_image_keeps_its_reason():
    assert errors.unpack(errors.pack(BadImageError("torn"))).reason == "torn"


def test_a_plug_ins_own_error_comes_back_as_a_failed_stage():
    class Foreign(MadbalError):
        def __init__(self, first, second):
            super().__init__(first, second)

        def __str__(self):
            return "in its own words"

    found = errors.unpack(json.loads(json.dumps(errors.pack(Foreign(1, 2)))))
    assert type(found) is StageError
    assert str(found) == "in its own words"


@pytest.mark.parametrize("name", ["Any", "annotations", "pack", "Nothing"])
def test_a_name_that_is_no_error_of_ours_is_a_failed_stage(name):
    found = errors.unpack({"type": name, "args": ["a"], "text": "told"})
    assert type(found) is StageError
    assert str(found) == "told"


def test_exit_codes():
    codes = {kind.__name__: kind.exit_code for kind in CLASSES if kind.exit_code != 1}
    assert codes == {"ConfigError": 2, "AnswersPending": 3}
