"""The reproduction, made small: that it runs, and that what it says is what it finds."""

import json

from hdzoo_reverse_diffusion import literature

from hdzoo.literature.base import reproduce


def test_reproduction(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(literature, "LEVELS", (20, 50))
    monkeypatch.setattr(literature, "STEPS", 50)
    found = reproduce("reverse-diffusion", tmp_path, "test", lambda *_: None)
    numbers = json.loads((tmp_path / "reverse-diffusion.json").read_text())["numbers"]
    rows = numbers["wasserstein2"]
    reverse, ancestral = rows["VE, reverse diffusion"], rows["VE, ancestral"]
    assert found.claims[0].agrees is (reverse["50"] < ancestral["50"])
    assert found.claims[2].agrees is (rows["VE, probability flow"]["50"] > reverse["50"])
    # All come nearer with more levels.
    assert all(row[most] < row[least] for row in rows.values() for least, most in [[*row]])
    said = ("unlike published" in found.conclusion.lower()) is (
        not all(claim.agrees for claim in found.claims[:3])
    )
    assert said
    assert (tmp_path / "reverse-diffusion.png").stat().st_size > 1000
