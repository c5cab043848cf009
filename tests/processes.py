"""Processes of their own that begin at once: forked from one that has imported what hdzoo is made
of, though not hdzoo itself. What they import of hdzoo they import anew."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORTED = (
    "accelerate",
    "datasets",
    "diffusers.models.autoencoders.vae",
    "diffusers.models.unets.unet_2d",
    "diffusers.optimization",
    "diffusers.pipelines.ddpm",
    "diffusers.schedulers.scheduling_ddpm",
    "diffusers.training_utils",
    "matplotlib.pyplot",
    "pytest",
    "rich.table",
    "scipy.stats",
    "sklearn",
    "torch_fidelity",
    "torch.distributed",
    "typer",
)


def start(*arguments, out, env=None, cwd=None):
    """Starts Python with these arguments: ``-m module``, ``-c code`` or a file, and the rest.

    Args:
        *arguments: of the command line, after its first word.
        out: where standard output goes, and standard error; files, written at their end.
        env: the environment, all of it; this process's by default.
        cwd: the folder that it runs in; this process's by default.

    Returns:
        The process.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(IMPORTED))
    given = list(map(str, arguments)), list(map(str, out)), dict(env or os.environ)
    process = server.Process(target=exec, args=(BEGIN, {"given": (*given, str(cwd or Path.cwd()))}))
    process.start()
    return process


# Not pickled as a function: the process would import this file before it has its environment.
BEGIN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import processes
processes.begin(*given)
"""


def begin(arguments, out, env, cwd):
    """What the process does."""
    for number, path in enumerate(out, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = list(filter(None, env.get("PYTHONPATH", "").split(os.pathsep)))
    sys.stdout.reconfigure(line_buffering=True)
    what, *rest = arguments
    if what == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(what, run_name="__main__")


def run(*arguments, env=None, cwd=None, timeout=300):
    """Runs Python to its end, as `subprocess.run` does; arguments as for `start`.

    Returns:
        A ``subprocess.CompletedProcess`` with what it has said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = [Path(folder) / name for name in ("out", "err")]
        process = start(*arguments, out=out, env=env, cwd=cwd)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(map(str, arguments)), timeout)
        said = [path.read_text() for path in out]
    return subprocess.CompletedProcess(arguments, process.exitcode, *said)


def launch(number, *arguments, out, **options):
    """Starts so many processes of one command as a launcher does; arguments as for `start`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "WORLD_SIZE": number,
        "LOCAL_WORLD_SIZE": number,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": 1,
    }
    return [
        start(
            *arguments,
            out=(out, out),
            env=os.environ
            | {key: str(value) for key, value in environment.items()}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            **options,
        )
        for rank in range(number)
    ]
