"""What many tests share: the command, also of several processes, and a model that is quick."""

import gc
import os
import sys
from functools import cache

import processes
import pytest
import typer.main

# Typer builds a parser anew at each call of a command.
parser_of = cache(typer.main.get_command)


# No test cuts the power, and a disk takes milliseconds for each file.
os.fsync = lambda _: None


def pytest_collection_finish():
    """What is imported by now stays, so that the collector need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command: (exit code, standard output, standard error)."""
    from hdzoo import cli

    monkeypatch.setattr("typer.main.get_command", parser_of)

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
    """Starts a command as a launcher starts its processes."""
    log = tmp_path_factory.mktemp("logs") / "log"

    def start(number, *arguments):
        return processes.launch(number, "-m", "hdzoo", *arguments, out=log)

    start.log = log
    return start
