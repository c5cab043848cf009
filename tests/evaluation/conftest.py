"""What tests of several processes share."""

import multiprocessing
import socket

import pytest

# What a process of a launcher is told, and what it runs.
PROCESS = """
import os, sys
os.environ.update(environment)
sys.stdout = sys.stderr = open(log, "a", buffering=1)
sys.argv = ["hdzoo", *arguments]
from hdzoo.cli import main
main()
"""


@pytest.fixture(scope="module")
def start_processes(tmp_path_factory):
    """Starts a command as a launcher starts its processes, but quickly: they are forked from one
    that has imported everything."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["hdzoo.cli", "hdzoo.evaluation.compare"])
    log = tmp_path_factory.mktemp("logs") / "log"

    def start(number, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for rank in range(number):
            environment = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": number,
                "LOCAL_WORLD_SIZE": number,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "GLOO_SOCKET_IFNAME": "lo",
                "ACCELERATE_USE_CPU": "true",
                "OMP_NUM_THREADS": 1,
            }
            names = {
                "environment": {key: str(value) for key, value in environment.items()},
                "arguments": list(map(str, arguments)),
                "log": str(log),
            }
            processes.append(server.Process(target=exec, args=(PROCESS, names)))
            processes[-1].start()
        return processes

    start.log = log
    return start
