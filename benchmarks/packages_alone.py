"""Does each package in plugins/ work alone beside hdzoo?

    python benchmarks/packages_alone.py
    python benchmarks/packages_alone.py hdzoo-walk-jump --environment /tmp/alone

Makes a virtual environment with hdzoo (some 6 GB, as `make demo`), unless it is there. Then for
each package in turn: installs it, runs its tests, asks `hdzoo samplers` for what it brings, draws
with each sampler by `hdzoo sample`, ranks them by `hdzoo compare`, and uninstalls it. Pictures,
boards and the output of what failed are in the output folder, and packages_alone.json. On
`ncsn-mnist`, on `energy-mnist` for samplers of energies, or on the pipeline that the package
brings. The exit code is 1 if anything fails.

Its tests try 15 configurations of each sampler, as in the tests of all; with ``--whole`` 200, as in
the package's own run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "model_cards" / "ncsn-mnist" / "reference-digits.safetensors"


class Environment:
    """A virtual environment, made if it is not there, and what is run in it."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.python, self.output = folder / "bin" / "python", output
        # Nothing of this checkout or of the caller's environment.
        self.variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if not self.python.exists():
            venv.create(folder, with_pip=True)
            self.pip("install", "torch", "torchvision")
        self.pip("install", f"{ROOT}[evaluate]", "pytest")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), "-m", *words]
        return subprocess.run(
            command, cwd=self.output, env=self.variables, capture_output=True, text=True
        )

    def pip(self, *words: str) -> None:
        done = self.run("pip", *words[:1], "--quiet", *words[1:])
        if done.returncode:
            sys.exit(f"pip {' '.join(words)}:\n{done.stderr}")

    def json(self, *words: str) -> Any:
        done = self.run("hdzoo", *words, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else []


def check(package: Path, environment: Environment, args: argparse.Namespace) -> dict[str, Any]:
    """What works of one package, once it is installed."""
    name, output = package.name, environment.output / package.name
    output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"failed": []}

    def passed(what: str, *words: str) -> bool:
        done = environment.run(*words)
        if done.returncode:
            found["failed"].append(what)
            (output / f"{what}.log").write_text(done.stdout + done.stderr)
        found["last"] = done.stdout.strip().splitlines()[-1:]
        return done.returncode == 0

    few = () if args.whole else (f"--confcutdir={package.parent}",)
    passed("tests", "pytest", "-q", "-p", "no:cacheprovider", *few, str(package))
    found["tests"] = " ".join(found.pop("last")).strip("= ")
    (plugin,) = (p for p in environment.json("plugins") if p["distribution"] == name)
    found["brings"] = {k: v for k, v in plugin.items() if isinstance(v, list) and v}
    usual = "energy-mnist" if name == "hdzoo-energy" else "ncsn-mnist"
    samplers, (model, *_) = plugin["samplers"], (*plugin["pipelines"], usual)
    listed = [row["name"] for row in environment.json("samplers") if row["error"] is None]
    found["listed"] = sorted(set(samplers) & set(listed))
    drawing = (model, "-t", str(args.num_inference_steps))
    found["drawn"] = [
        sampler
        for sampler in samplers
        if passed(
            f"sample-{sampler}",
            *("hdzoo", "sample", *drawing, "-s", sampler, "-n", str(args.num_images)),
            *("--output", str(output / f"{sampler}.png")),
        )
    ]
    found["ranked"] = []
    if samplers:
        board = output / "board"
        chosen = [word for sampler in samplers for word in ("-s", sampler)]
        done = passed(
            "compare",
            *("hdzoo", "compare", *drawing, "-O", str(board), "-n", str(args.num_images)),
            *("--trials", "0", "--reference", str(REFERENCE), *chosen),
        )
        entries = json.loads((board / "leaderboard.json").read_text())["entries"] if done else []
        found["ranked"] = [entry["sampler"] for entry in entries if entry["failure"] is None]
    found["works"] = not found["failed"] and all(
        sorted(found[key]) == sorted(samplers) for key in ("listed", "drawn", "ranked")
    )
    found.pop("last", None)
    return found | {"model": model}


parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("packages", nargs="*", help="names in plugins/; all by default")
parser.add_argument("--environment", type=Path, default=Path("runs/packages_alone/environment"))
parser.add_argument("--output", "-O", type=Path, default=Path("runs/packages_alone"))
parser.add_argument("--num-images", "-n", type=int, default=20, help="at least 20, for compare")
parser.add_argument("--num-inference-steps", "-t", type=int, default=24)
parser.add_argument("--whole", action="store_true", help="200 configurations of each sampler")
options = parser.parse_args()

folders = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
unknown = set(options.packages) - {folder.name for folder in folders}
if unknown:
    parser.error(f"there is no plugins/{min(unknown)}")
options.output.mkdir(parents=True, exist_ok=True)
alone = Environment(options.environment.absolute(), options.output.absolute())
alone.pip("uninstall", "--yes", *(folder.name for folder in folders))
report_file = options.output / "packages_alone.json"
report = json.loads(report_file.read_text()) if report_file.exists() else {}
for folder in folders:
    if options.packages and folder.name not in options.packages:
        continue
    begin = time.perf_counter()
    alone.pip("install", f"{folder}[test]")
    try:
        report[folder.name] = check(folder, alone, options)
    finally:
        alone.pip("uninstall", "--yes", folder.name)
    report[folder.name]["seconds"] = round(time.perf_counter() - begin)
    report_file.write_text(json.dumps(report, indent=2) + "\n")

table = Table("package", "works", "tests", "samplers listed", "drawn", "ranked", "on", "s")
for name, found in report.items():
    count = len(found["brings"].get("samplers", ()))
    shares = (f"{len(found[key])} of {count}" for key in ("listed", "drawn", "ranked"))
    works = "yes" if found["works"] else f"no: {', '.join(found['failed'])}"
    table.add_row(name, works, found["tests"], *shares, found["model"], str(found["seconds"]))
Console(width=160).print(table)
sys.exit(not all(found["works"] for found in report.values()))
