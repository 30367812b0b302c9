import logging

import pytest
from evaluated import CHANNELS, Prepared, container, item
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.handlers.detection import Detection
from common.training.stages import Training
from common.training.tasks import Task


class Inferer(Prepared):
    channels = CHANNELS

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.settings = scale, {"scale": scale}

    def __call__(self, inputs, network):
        return self.scale * super().__call__(inputs, network)


@pytest.fixture
def network():
    return container()


@pytest.fixture
def task(tmp_path, network):
    training = Training("cpu", str(tmp_path), str(tmp_path), str(tmp_path / "model.pt"), 1)
    cases = [item("a"), item("b", lesions=0)]
    return Task(training, network, container(), cases, dict, Inferer(), Detection, Inferer(2.0))


def test_scores_and_pictures_of_validation_cases_go_to_tensorboard(task, tmp_path):
    task.evaluator.run(3)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "task")).Reload()
    assert events.Scalars("ap")[0].value == pytest.approx(task.evaluator.state.metrics["ap"])
    assert set(events.Tags()["images"]) == {"a", "b"}


def test_what_is_true_of_all_cases_is_said_once_a_validation(task, caplog):
    class Doubtful(Inferer):
        def __call__(self, inputs, network):
            logging.getLogger("common.inferers.slices").warning("there is no threshold")
            return super().__call__(inputs, network)

    task.evaluator.inferer = Doubtful()
    task.evaluator.run()
    assert [record.message for record in caplog.records].count("there is no threshold") == 1


def test_the_threshold_fits_what_the_full_inferer_finds_and_is_kept_with_its_settings(task, network):
    task.fit_threshold()
    assert network.thresholds == [(60, {"scale": 2})]  # a lesion of 30, twice as high


def test_nothing_is_fitted_to_cases_without_lesions(tmp_path, network, caplog):
    training = Training("cpu", str(tmp_path), str(tmp_path), str(tmp_path / "model.pt"), 1)
    cases = [item("b", lesions=0)]
    Task(training, network, network, cases, dict, Inferer(), Detection, Inferer()).fit_threshold()
    assert "was not fitted" in caplog.text
