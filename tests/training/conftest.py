"""What tests of training share: data, a run that nothing disturbed, and disturbances."""

import signal

import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from training_runs import (
    run,
)

from hdzoo.images.sources import load_images
from hdzoo.training import outcome
from hdzoo.training import run as runs


@pytest.fixture(scope="session")
def digits():
    """So many that `CONFIG` shows each once."""
    return load_images("digits").select(range(240))


@pytest.fixture(scope="session")
def held_out():
    return load_images("digits", "test").select(range(100))


@pytest.fixture(autouse=True)
def blank_curve(request, monkeypatch):
    """The picture of the losses takes as long as a short run: drawn where a test asks for it."""
    if "curve" not in request.fixturenames:
        monkeypatch.setattr(
            outcome, "save_curve", lambda _, path: Image.new("L", (1, 1)).save(path)
        )


@pytest.fixture
def curve():
    """Pictures of the losses are drawn."""


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate keeps one mixed precision for each process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, digits, held_out):
    """A run of `CONFIG` that nothing disturbed; not to be changed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return run(tmp_path_factory.mktemp("reference"), digits, held_out=held_out)


@pytest.fixture
def at_step(monkeypatch):
    """Makes a step's loss pass through a function."""

    def install(step, change):
        original, calls = runs.Run.loss, [0]

        def loss_of(*args):
            calls[0] += 1
            loss = original(*args)
            return change(loss) if calls[0] == step else loss

        monkeypatch.setattr(runs.Run, "loss", loss_of)

    return install


@pytest.fixture
def interrupt():
    """Raises Ctrl-C; as a shell starts what it puts into the background, SIGINT may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def send(loss):
        signal.raise_signal(signal.SIGINT)
        return loss

    yield send
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def kill(interrupt):
    """Ends a run at once, as if all had gone wrong."""

    def twice(loss):
        return interrupt(interrupt(loss))

    return twice
