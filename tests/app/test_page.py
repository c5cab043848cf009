"""The server of the page: what it says, what it keeps to itself, and that it goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from hdzoo import plugins

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def served(tiny):
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'hdzoo[app]'")
    from hdzoo.app.page import serve

    with pytest.MonkeyPatch.context() as patch:
        # Nobody opens a way in by the environment.
        patch.setenv("GRADIO_ALLOWED_PATHS", "/")
        page, address = serve([tiny])
    yield page, address
    page.close()


@pytest.fixture(scope="module")
def client(served):
    from gradio_client import Client

    return Client(served[1], verbose=False)


def config(address):
    with urlopen(f"{address}config") as answer:
        return json.load(answer)


def test_it_listens_on_this_machine_alone(served):
    page, address = served
    assert address.startswith("http://127.0.0.1:")
    assert page.server_name == "127.0.0.1"
    assert not page.share


def test_nothing_is_fetched_from_elsewhere_and_nothing_is_told(served):
    page, address = served
    with urlopen(address) as answer:
        text = answer.read().decode()
    for word in ("googleapis", "gstatic", "cdnjs", "jsdelivr", "unpkg", '<script src="http'):
        assert word not in text
    assert page.analytics_enabled is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


SECRETS = (
    "/etc/passwd",
    "../../../../../../etc/passwd",
    str(ROOT / "pyproject.toml"),
    str(ROOT / "hdzoo" / "app" / "page.py"),
    "pyproject.toml",
    "file:///etc/passwd",
    "/proc/self/environ",
)


@pytest.mark.parametrize("route", ["file=", "gradio_api/file=", "gradio_api/file/", "static/"])
@pytest.mark.parametrize("path", SECRETS)
def test_no_file_of_the_machine_is_served(served, route, path):
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{served[1]}{route}{quote(path)}")
    assert refused.value.code in (400, 403, 404, 405, 422)


def test_the_models_own_files_are_not_served_either(served, tiny):
    weights = next(Path(tiny).glob("unet/*.safetensors"))
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{served[1]}gradio_api/file={weights}")
    assert refused.value.code == 403


def test_whatever_is_registered_is_there(served):
    fields = {
        part["props"]["label"]: [choice[0] for choice in part["props"]["choices"]]
        for part in config(served[1])["components"]
        if part["type"] == "dropdown"
    }
    assert fields["Samplers"] == plugins.list_samplers()
    assert set(fields["Model"]) >= set(plugins.names("pipelines"))
    assert {"circle", "eight-gaussians"} <= set(fields["Target"])


def test_one_queue_for_all_that_computes(served):
    limits = {fn.concurrency_limit for fn in served[0].fns.values() if fn.concurrency_id == "heavy"}
    assert limits == {1}
    heavy = [fn for fn in served[0].fns.values() if fn.concurrency_id == "heavy"]
    # In the plane, wind tunnel, inpainting (its picture too), interpolation, and the programs' way;
    # the button of the first tab comes with its fields.
    assert len(heavy) == 6


def test_programs_draw_through_it(client, tiny):
    ((name, picture, note),) = client.predict(tiny, ["heun"], 2, 4, 0, None, api_name="/draw")
    assert name == "heun"
    assert picture.startswith("data:image/png;base64,")
    assert note.startswith("4 evaluations an image")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("/etc", ["heun"], 2, 4, 0, None), "'/etc' is no model of this page"),
        (("MODEL", [], 2, 4, 0, None), "no sampler is chosen"),
        (("MODEL", ["heun"], 10**9, 4, 0, None), "the number of images is 1000000000"),
        (("MODEL", ["heun"], 2, 4, 0, {"heun": {"churn": "NaN"}}), "churn is nan"),
        (("MODEL", ["heun"], 2, 4, "seed", None), "seed is 'seed'"),
        (("MODEL", 7, 2, 4, 0, 8), ""),
    ],
)
def test_bad_input_is_a_message_and_the_server_goes_on(client, tiny, given, message):
    from gradio_client.exceptions import AppError

    given = [tiny if value == "MODEL" else value for value in given]
    with pytest.raises(AppError) as refused:
        client.predict(*given, api_name="/draw")
    assert message in str(refused.value)
    assert "Traceback" not in str(refused.value)
    assert client.predict(tiny, ["heun"], 1, 2, 0, None, api_name="/draw")


def test_visits_take_no_more_memory_however_many_they_are(served, tiny, monkeypatch):
    from gradio_client import Client

    from hdzoo.app.limits import MOST_VISITS

    page, address = served
    visits = page.state_holder
    assert visits.capacity == MOST_VISITS
    monkeypatch.setattr(visits, "capacity", 2)
    for seed in range(4):
        visitor = Client(address, verbose=False)
        assert visitor.predict(tiny, ["heun"], 1, 2, seed, None, api_name="/draw")
    assert len(visits.session_data) == 2
    assert visitor.session_hash in visits.session_data


def test_no_history_of_what_was_drawn_is_kept(served):
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{served[1]}gradio_api/runs")
    assert refused.value.code == 404


def test_a_fault_of_a_plugin_is_a_message_too(client, tiny, monkeypatch):
    from hdzoo.app import drawing

    monkeypatch.setattr(drawing.sampling, "image_grid", lambda *_: {}["a fault"])
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match="KeyError: 'a fault'"):
        client.predict(tiny, ["heun"], 1, 2, 0, None, api_name="/draw")


def test_without_gradio_the_command_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [name for name in sys.modules if name.startswith("hdzoo.app.")]:
        monkeypatch.delitem(sys.modules, name)
    code, out, err = run("app")
    assert (code, out) == (2, "")
    assert "error: this command needs gradio: pip install 'hdzoo[app]'" in err


def test_a_wrong_start_is_a_message(run, tmp_path, served):
    port = served[1].rstrip("/").rpartition(":")[2]
    for arguments, message in (
        (("--model", tmp_path / "none"), "there is no model"),
        (("--boards", tmp_path / "none"), "is no folder"),
        (("--boards", tmp_path), "hdzoo compare"),
        (("--port", port), "cannot listen at 127.0.0.1"),
    ):
        code, out, err = run("app", *arguments)
        assert (code, out) == (2, "")
        assert message in err


def test_the_command_knows_nothing_of_gradio_until_it_runs():
    code = "import sys, hdzoo.cli; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_space_is_ready():
    import yaml

    lines = (ROOT / "space" / "README.md").read_text()
    _, head, _ = lines.split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["sdk"] == "gradio"
    assert (ROOT / "space" / card["app_file"]).is_file()
    # What the Hub allows.
    assert len(card["short_description"]) <= 60
    compile((ROOT / "space" / "app.py").read_text(), "app.py", "exec")
    assert (ROOT / "space" / "requirements.txt").read_text().split() == ["hdzoo[app]"]
