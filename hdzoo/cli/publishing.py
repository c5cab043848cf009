"""Commands that exchange models with the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.terminal import say

REPOSITORY = "NAMESPACE/NAME"


def push(
    folder: Annotated[str, typer.Argument(help="A pipeline folder, or a bundled name.")],
    repo_id: Annotated[
        str, typer.Argument(metavar=REPOSITORY, help="The repository; made where it is missing.")
    ],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Default: the namespace's own setting."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Made where it is missing. Default: main.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="A name for the commit; it must be new.")] = None,
    commit_message: Annotated[str | None, typer.Option(help="Of one line.")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead.")
    ] = False,
) -> None:
    """Send a pipeline folder to the Hub: what belongs there, with a card that works there.

    The token is that of `hf auth login`, or HF_TOKEN in the environment.
    """
    from hdzoo.hub.publishing import push_folder
    from hdzoo.hub.resolve import local_model
    from hdzoo.pipelines.pipeline import HDPipeline

    commit = push_folder(
        local_model(folder) or folder,
        repo_id,
        load=HDPipeline.from_pretrained,
        private=private,
        revision=revision,
        tag=tag,
        commit_message=commit_message,
        create_pr=create_pr,
    )
    say(commit.pr_url or commit.commit_url)


def pull(
    repo_id: Annotated[str, typer.Argument(metavar=REPOSITORY, help="The repository.")],
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-O", help="A new folder for it. Default: the Hub's cache."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit. Default: main.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Of the weights, such as fp16; no other is downloaded.")
    ] = None,
    force_download: Annotated[
        bool, typer.Option("--force-download", help="Whatever the cache has.")
    ] = False,
) -> None:
    """Download a pipeline from the Hub, and print its folder.

    The token is that of `hf auth login`, or HF_TOKEN in the environment.
    """
    from hdzoo.hub.pulling import pull as pull_pipeline

    say(
        pull_pipeline(
            repo_id,
            output_dir,
            revision=revision,
            variant=variant,
            force_download=force_download,
        )
    )
