"""What many tests share: the command, also of several processes, and a model that is quick."""

import multiprocessing
import socket
import sys

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


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command: (exit code, standard output, standard error)."""
    from hdzoo import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hdzoo", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A pipeline folder with a tiny network of random weights."""
    import torch

    from hdzoo import HDPipeline, get_sampler
    from hdzoo.models.unet import UNetScoreModel

    torch.manual_seed(0)
    network = UNetScoreModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4)
    sampler = get_sampler("annealed-langevin")(
        sigma_max=2.0, num_levels=4, steps_per_level=2, prediction_type="sample"
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    HDPipeline(network, sampler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start_processes(tmp_path_factory):
    """Starts a command as a launcher starts its processes, but quickly: they are forked from one
    that has imported everything."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["hdzoo.cli", "hdzoo.leaderboard.compare"])
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
