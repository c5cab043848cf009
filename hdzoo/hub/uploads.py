"""A commit to a repository on the Hub."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

from hdzoo.errors import HDZooError
from hdzoo.hub.client import check_repo_id, patiently, reason

MAIN = "main"


@dataclass(frozen=True)
class Upload:
    """Where files go on the Hub, and under what name. They go as one commit: all or none.

    Args:
        repo_id: ``"namespace/name"``; made where it is missing.
        repo_type: ``"model"`` or ``"dataset"``.
        private: whether the repository is for its owners alone, which it then must be already if
            it is there; by default what the namespace's setting is.
        revision: the branch, made from the main one where it is missing; the main one by default.
        tag: a name for the commit, which must be new.
        commit_message: of one line; "Upload with hdzoo" by default.
        create_pr: whether to open a pull request instead of changing the branch.
        token: that of ``hf auth login``, or ``HF_TOKEN`` in the environment, by default.

    Raises:
        HDZooError: ``repo_id`` is no such name.
    """

    repo_id: str
    repo_type: str = "model"
    private: bool | None = None
    revision: str | None = None
    tag: str | None = None
    commit_message: str | None = None
    create_pr: bool = False
    token: str | bool | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)

    @property
    def api(self) -> HfApi:
        """The Hub, as the user of the token."""
        return HfApi(token=self.token)

    @property
    def branch(self) -> str:
        """The branch that the commit goes to."""
        return self.revision or MAIN

    @property
    def _place(self) -> dict[str, Any]:
        return {"repo_id": self.repo_id, "repo_type": self.repo_type}

    def prepare(self) -> list[str]:
        """Makes the repository and the branch, and refuses what must not happen to what is there.

        Returns:
            The names of the files that are there.

        Raises:
            HDZooError: the repository was to be private and is public, the tag is there, or the Hub
                refuses.
        """
        api, place = self.api, self._place
        with self._refusal():
            patiently(lambda: api.create_repo(**place, private=self.private, exist_ok=True))
            if self.private and not patiently(lambda: api.repo_info(**place)).private:
                raise HDZooError(
                    f"{self.repo_id!r} is there and is public, and private is asked for; nothing "
                    "was sent. Make it private in its settings, or give another name"
                )
            if self.tag is not None:
                refs = patiently(lambda: api.list_repo_refs(**place))
                if self.tag in [tag.name for tag in refs.tags]:
                    raise HDZooError(
                        f"{self.repo_id!r} has the tag {self.tag!r} already; nothing was sent. "
                        "Give another tag"
                    )
            if self.branch != MAIN:
                patiently(lambda: api.create_branch(**place, branch=self.branch, exist_ok=True))
            return patiently(lambda: api.list_repo_files(**place, revision=self.branch))

    def read(self, name: str) -> str:
        """The text of a file that is there.

        Args:
            name: of the file.

        Raises:
            HDZooError: the Hub does not give it.
        """
        api, place = self.api, self._place
        with self._refusal(), TemporaryDirectory() as folder:
            path = patiently(
                lambda: api.hf_hub_download(
                    **place, filename=name, revision=self.branch, local_dir=folder
                )
            )
            return Path(path).read_bytes().decode(errors="replace")

    def send(self, files: Mapping[str, Path | bytes], delete: Iterable[str] = ()) -> CommitInfo:
        """Commits files, after `prepare`.

        Args:
            files: from the name in the repository to the content.
            delete: the names of those that the commit takes away.

        Returns:
            The commit; its ``commit_url`` is the address, ``pr_url`` that of the pull request.

        Raises:
            HDZooError: the Hub refuses.
        """
        api, place = self.api, self._place

        def commit() -> CommitInfo:
            # Operations remember what became of them, so each attempt has its own.
            operations = [CommitOperationAdd(name, content) for name, content in files.items()]
            return api.create_commit(
                **place,
                operations=[*operations, *map(CommitOperationDelete, delete)],
                commit_message=self.commit_message or "Upload with hdzoo",
                revision=self.branch,
                create_pr=self.create_pr,
            )

        with self._refusal():
            info = patiently(commit)
            if self.tag is not None:
                patiently(
                    lambda: api.create_tag(
                        **place, tag=str(self.tag), revision=info.oid, exist_ok=True
                    )
                )
            return info

    @contextmanager
    def _refusal(self) -> Iterator[None]:
        try:
            yield
        except HDZooError:
            raise
        except Exception as error:
            raise HDZooError(
                f"the Hub does not take {self.repo_id!r}: {reason(error)}. When that is mended, "
                "give the same command again"
            ) from error


def check_inside(path: Path, folder: Path) -> None:
    """Refuses to send a file that is elsewhere in truth: what is there may well be a secret.

    Args:
        path: of the file, in the folder or in one of its folders.
        folder: that is sent.

    Raises:
        HDZooError: there is a link on the way, and it leads outside.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise HDZooError(
            f"{path} is or lies behind a link that leads outside the folder, to {path.resolve()}; "
            "nothing was sent. Put a copy in its place if it belongs there"
        )
