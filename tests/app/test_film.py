"""Films in HTML: nothing that others wrote means anything there, and pictures are inside."""

import base64
import html
import io
import json
import re

import pytest
from PIL import Image

from hdzoo.app.film import Film, as_html, problem, table, thinned

FRAMES = [Image.new("L", (4, 4), shade) for shade in (0, 100, 200)]


def test_frames_are_inside_in_order_and_the_last_is_shown():
    found = as_html([Film("one", FRAMES, ["a", "b", "c"])] * 2)
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*?( hidden)?>', found)
    shades = [
        Image.open(io.BytesIO(base64.b64decode(code))).getpixel((0, 0)) for code, _ in pictures
    ]
    assert shades == [0, 100, 200] * 2
    assert [bool(hidden) for _, hidden in pictures] == [True, True, False] * 2
    (captions,) = re.findall(r'data-captions="([^"]*)"', found)
    assert json.loads(html.unescape(captions)) == ["a", "b", "c"]
    assert 'min="0" max="2" value="2"' in found


def test_what_is_forming_is_its_last_frame_without_a_slider():
    found = as_html([Film("one", FRAMES, ["a", "b", "c"])], "status", forming=True)
    assert found.count("<img") == 1
    assert "range" not in found
    assert 'data-forming="true"' in found


def test_names_are_shown_and_mean_nothing():
    evil = "<script>x</script>'\"&"
    film = Film(evil, FRAMES[:2], [evil, evil], evil)
    for found in (as_html([film], evil), table([{evil: evil}]), problem(evil)):
        assert "<script" not in found
        assert html.escape("<script>x</script>") in found


@pytest.mark.parametrize("count", [0, 1, 2, 24, 25, 26, 500])
def test_thinned_keeps_both_ends(count):
    kept = thinned(count)
    assert len(kept) == min(count, 25)
    assert kept == sorted(set(kept))
    if kept:
        assert (kept[0], kept[-1]) == (0, count - 1)
