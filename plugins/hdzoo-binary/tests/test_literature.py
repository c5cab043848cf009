"""The curves of the reproduction: what is claimed of them."""

import matplotlib.figure
import pytest
from hdzoo_binary import literature

from hdzoo import plugins
from hdzoo.literature.base import Reproduction


def test_reproduction(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer points on the curves; all claims hold, and the figure is drawn."""
    monkeypatch.setattr(literature, "STEP_SIZES", (0.25, 1.0, 4.0))
    monkeypatch.setattr(literature, "NOISES", (1.0, 2.0, 4.0))
    monkeypatch.setattr(literature, "MEASUREMENTS", (1, 2, 16))
    told: list[int] = []
    result = plugins.get("reproductions", "discrete-langevin")(
        lambda text, done=0, total=0: told.append(done)
    )
    assert isinstance(result, Reproduction)
    assert told[-1] == len(literature.SIGMAS) + 4
    # Of two stages against one nothing is published.
    assert [claim.agrees for claim in result.claims] == [True, True, None, None, True, True]
    assert max(result.numbers["independent_signs"]["two stages, difference"]) < 1e-8
    figure = matplotlib.figure.Figure()
    result.draw(figure)
    assert len(figure.axes) == 4
    jumps = result.numbers["jump"]
    # One measurement at 1.7 loses much of what the data are.
    assert min(jumps["sign"][0], jumps["rounding"][0]) > 0.25
