"""The reproduction, made small: that it runs, and that what it says is what it finds."""

import json
import math

from hdzoo_energy import reproduction

from hdzoo.literature.base import reproduce


def test_reproduction(tmp_path, monkeypatch) -> None:
    small = {"CHAINS": 300, "EVALUATIONS": 22, "STEP_SIZES": (0.01, 0.04, 0.6)}
    for name, value in small.items():
        monkeypatch.setattr(reproduction, name, value)
    found = reproduce("energy-samplers", tmp_path, "test", lambda *_: None)
    assert (tmp_path / "energy-samplers.png").stat().st_size > 1000
    numbers = json.loads((tmp_path / "energy-samplers.json").read_text())["numbers"]
    rows, cold = numbers["sliced_wasserstein2"], numbers["low_temperature"]
    # Beyond 2 V of the narrow direction, 0.04, the unadjusted walk runs away, and no other.
    assert [len(row["from the law"]) for row in rows.values()] == [3, 3, 3, 3]
    assert not math.isfinite(rows["sgld"]["from the law"][2] or math.nan)
    assert all(map(math.isfinite, rows["hmc"]["from the law"]))
    # sqrt(T V) = 1e-3 in the widest direction, V = 0.85, and of the start e^{-5.12 / V} = 2e-3.
    assert max(cold["stable"]["standard_deviations_in_the_right_mode"]) < 0.01
    assert cold["temperature"] == 0.005**2 / 20
    statements = [claim.statement for claim in found.claims]
    assert len(statements) == len(set(statements)) == 5
    assert found.claims[3].agrees is False
