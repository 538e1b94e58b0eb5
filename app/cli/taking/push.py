"""`cherry models push`: a tuned model or a checkpoint, put on a hub as one commit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.output import AsJson, CliError, console, errors, print_json
from app.exports.use import AT_SERVICE, FOLDER, HERE, WITHIN, Format

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"  # noqa: S105  # the name of a variable
"""The one place that a token is read from: what it is given by arguments, others of the machine can read."""
README, ATTRIBUTES = "README.md", ".gitattributes"
"""The model card, and the file that a hub makes by itself."""
NO_TOKEN, NO_RIGHT, NOT_FOUND, CONFLICT = 401, 403, 404, 409


class _Target(NamedTuple):
    """Where a model is put. `repo` is the repository's name with its owner's."""

    api: HfApi
    repo: str
    is_public: bool
    replaces: bool


def push(
    name: Annotated[str, typer.Argument(help="A tuned model, or a checkpoint by its name or id.")],
    repo: Annotated[str, typer.Argument(help="The repository: OWNER/NAME.")],
    form: Annotated[Format, typer.Option("--format", help="What of it.")] = "merged",
    public: Annotated[bool, typer.Option("--public", help="Let everybody read it.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of what a repository holds that is there.")
    ] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Put a tuned model on the Hugging Face hub, with its model card.

    The repository is a new one and private, unless told otherwise. HF_TOKEN is a token that may write to it,
    and HF_ENDPOINT another hub.
    """
    from app.cli.taking import lines
    from app.cli.taking.download import take

    quiet = as_json or not errors.is_terminal
    target = _Target(_hub(quiet), repo, public, replace)
    with _told(target), open_client(url, key, data) as client, tempfile.TemporaryDirectory() as scratch:
        _check(target)
        folder = Path(scratch) / "model"
        checkpoint = lines.checkpoint_of(client, name)
        take(client, checkpoint, form, folder, quiet=as_json, base_at="base")
        _readdress(folder, repo)
        commit = _commit(target, folder, checkpoint["fine_tuned_model_checkpoint"])
    place = f"{target.api.endpoint}/{repo}"
    if as_json:
        print_json({"repo": repo, "url": place, "format": form, "commit": commit})
        return
    console.print(f"{checkpoint['fine_tuned_model_checkpoint']} is at {place}.", markup=False, soft_wrap=True)
    console.print(f"\n  hf download {repo} --local-dir {FOLDER}", markup=False, soft_wrap=True)


def _hub(quiet: bool) -> HfApi:
    """Returns the hub's client. Raises `CliError` where it cannot be used."""
    try:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError:
        raise CliError("the package huggingface_hub is missing: pip install huggingface_hub") from None
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise CliError(f"{TOKEN} is not set: it is a token of the hub that may write to the repository")
    if constants.is_offline_mode():
        raise CliError("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so that nothing is sent: unset it")
    if quiet:
        disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None, token=token)


def _check(target: _Target) -> None:
    """Raises `CliError` for a repository that is there and not to be replaced, before anything is fetched."""
    owner, _, own = target.repo.partition("/")
    if not (owner and own):
        raise CliError(f"'{target.repo}' is no name of a repository: say OWNER/NAME")
    target.api.whoami()
    if not target.replaces and target.api.repo_exists(target.repo):
        raise CliError(_there_already(target.repo))


def _there_already(repo: str) -> str:
    return f"{repo} is there already: choose another name, or put this in its place with --replace"


def _readdress(folder: Path, repo: str) -> None:
    """Lets the model card say where its files are now."""
    from app.cli.taking.download import rewrite

    text = (folder / README).read_text("utf-8")
    here = f"{HERE[:-1]}: `hf download {repo} --local-dir {FOLDER}` makes one."
    rewrite(folder, README, text.replace(HERE, here).replace(AT_SERVICE, WITHIN))


def _commit(target: _Target, folder: Path, model: str) -> str:
    """Makes the repository, and one commit with exactly the files of a folder. Returns the commit's hash."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api, repo = target.api, target.repo
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    there = set(api.list_repo_files(repo)) if target.replaces and api.repo_exists(repo) else None
    if there is None:
        api.create_repo(repo, private=not target.is_public)
    operations: list[Any] = [CommitOperationAdd(name, str(folder / name)) for name in sorted(names)]
    operations += [CommitOperationDelete(name) for name in sorted((there or names) - names - {ATTRIBUTES})]
    return str(api.create_commit(repo, operations, commit_message=f"Add {model}").oid)


@contextmanager
def _told(target: _Target) -> Iterator[None]:
    """Says what the hub's faults mean."""
    import httpx2 as httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as problem:
        raise CliError(str(problem)) from None
    except HfHubHTTPError as problem:
        raise CliError(_answer(target, problem)) from None
    except (httpx.TransportError, RuntimeError) as problem:
        cause = problem.__cause__ if isinstance(problem.__cause__, HfHubHTTPError) else None
        raise CliError(_answer(target, cause) if cause else _broke_off(target, problem)) from None


def _broke_off(target: _Target, problem: Exception) -> str:
    why = problem.__cause__ or problem
    return f"{target.api.endpoint} does not answer, or the upload broke off ({why}). {_go_on(target)}"


def _go_on(target: _Target) -> str:
    return f"If {target.repo} has been made by now, go on with --replace"


def _answer(target: _Target, problem: Any) -> str:
    hub, status = target.api.endpoint, problem.response.status_code
    said = problem.server_message or str(problem)
    if status == NO_TOKEN:
        return f"{hub} does not take the token in {TOKEN}: make one that may write at {hub}/settings/tokens"
    if status in (NO_RIGHT, NOT_FOUND):
        return f"the token in {TOKEN} has no right to write to {target.repo} at {hub} ({said})"
    if status == CONFLICT:
        return _there_already(target.repo)
    return f"{hub} answers {status} ({said}). {_go_on(target)}"
