"""Installs a wheel or a source distribution into a fresh environment, and uses it elsewhere.

    python -m build && python tests/installed.py dist/*.whl dist/*.tar.gz

Some minutes and 6 GB each: PyTorch is installed too. The exit code is 1 if anything fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

PORT = 7861
COMMANDS = (
    ("hdzoo", "--version"),
    ("hdzoo", "info", "--env"),
    ("hdzoo", "sample", "-n", "4", "-o", "readout=full", "-t", "20", "--output", "demo.png"),
    ("hdzoo", "verify", "langevin"),
    ("hdzoo", "new-sampler", "mine"),
)


def try_out(distribution: Path, pip_options: list[str]) -> list[str]:
    """What fails of a distribution in an environment that has nothing but it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Nothing of this checkout or of the caller's environment.
        variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        variables["PATH"] = f"{folder / 'venv' / 'bin'}{os.pathsep}{variables['PATH']}"
        venv.create(folder / "venv", with_pip=True)

        def runs(*words: str) -> bool:
            print("$", *words, flush=True)
            begin = time.perf_counter()
            done = subprocess.run(words, cwd=folder, env=variables, check=False)
            print(f"exit {done.returncode} after {time.perf_counter() - begin:.0f} s", flush=True)
            return done.returncode == 0

        install = ("python", "-m", "pip", "install", "--quiet", *pip_options)
        if not runs(*install, f"{distribution.resolve()}[app,evaluate]"):
            return ["installation"]
        failed = [" ".join(words) for words in COMMANDS if not runs(*words)]
        if not serves(folder, variables):
            failed.append("hdzoo app")
        return failed


def serves(folder: Path, variables: dict[str, str]) -> bool:
    """Whether `hdzoo app` answers within two minutes."""
    words = ("hdzoo", "app", "--port", str(PORT))
    print("$", *words, flush=True)
    with subprocess.Popen(words, cwd=folder, env=variables) as server:
        try:
            for _ in range(120):
                time.sleep(1)
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/") as page:
                        return bool(page.status == 200)
                except OSError:
                    if server.poll() is not None:
                        return False
            return False
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("distributions", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--pip-option", action="append", default=[], metavar="OPTION")
    args = parser.parse_args()
    failed = {path.name: try_out(path, args.pip_option) for path in args.distributions}
    for name, what in failed.items():
        print(f"{name}: {'works' if not what else 'fails: ' + ', '.join(what)}")
    sys.exit(any(failed.values()))


if __name__ == "__main__":
    main()
