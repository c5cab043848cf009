"""Installs a wheel or a source distribution into a fresh environment, and uses it elsewhere.

    python -m build && python tests/installed.py dist/*.whl dist/*.tar.gz

Some minutes and 6 GB each: PyTorch is installed too. The exit code is 1 if anything fails.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path

COMMANDS = (
    ("hdzoo", "--version"),
    ("hdzoo", "info", "--env"),
    ("hdzoo", "sample", "-n", "4", "-t", "20", "--output", "digits.png"),
    ("python", "-c", "from PIL import Image; Image.open('digits.png').verify()"),
    ("hdzoo", "demo-2d", "-n", "50", "-t", "50"),
    ("hdzoo", "verify", "langevin"),
    ("hdzoo", "new-sampler", "mine"),
)


def try_out(distribution: Path, pip_options: list[str]) -> list[str]:
    """What fails of a distribution in an environment that has nothing but it."""
    with tempfile.TemporaryDirectory() as name:
        environment = Path(name) / "venv"
        venv.create(environment, with_pip=True)
        install = ("python", "-m", "pip", "install", "--quiet", *pip_options)
        wanted = f"{distribution.resolve()}[app,evaluate]"
        if not runs((*install, wanted), environment, Path(name)):
            return ["installation"]
        return use(environment, Path(name))


def use(environment: Path, folder: Path) -> list[str]:
    """What fails of what is installed in an environment, in an empty folder."""
    failed = [" ".join(words) for words in COMMANDS if not runs(words, environment, folder)]
    if not serves(environment, folder):
        failed.append("hdzoo app")
    return failed


def variables(environment: Path) -> dict[str, str]:
    """Nothing of this checkout or of the caller's environment."""
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**own, "PATH": f"{environment / 'bin'}{os.pathsep}{own['PATH']}"}


def runs(words: Sequence[str], environment: Path, folder: Path) -> bool:
    """Whether a command ends well."""
    print("$", *words, flush=True)
    begin = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=variables(environment), check=False)
    print(f"exit {done.returncode} after {time.perf_counter() - begin:.0f} s", flush=True)
    return done.returncode == 0


def serves(environment: Path, folder: Path) -> bool:
    """Whether `hdzoo app` answers within five minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("hdzoo", "app", "--port", str(port))
    print("$", *words, flush=True)
    with subprocess.Popen(words, cwd=folder, env=variables(environment)) as server:
        try:
            for _ in range(300):
                time.sleep(1)
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
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
