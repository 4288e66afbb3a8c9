"""How wszoo talks to the Hub: its client's calls, repeated where it does not, and its errors.

Whatever the client raises becomes one line that says what to do, without the token.
"""

import contextlib
import itertools
import json
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from zoo.errors import ZooError, safe_line, without_secrets
from zoo.hub import bounds
from zoo.hub.trust import INDEX_BYTES
from zoo.shards import INDEX_FILE, File

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")
# Bytes that are done, bytes in all.
Progress: TypeAlias = Callable[[int, int], None]

MAIN = "main"
# Of one call that the client does not repeat itself: half a minute of waiting in all.
TRIES = 6
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
# Files that are fetched side by side; of one more each has less.
SIDE_BY_SIDE = 8
KEPT = "; what arrived is kept"
# Characters of what a server said.
_SAID = 300


class HubError(ZooError):
    """What went wrong between here and a repository.

    Attributes:
        absent: whether nobody said that there is such a repository.
    """

    def __init__(self, line: str, absent: bool = False):
        super().__init__(line)
        self.absent = absent


def open_api() -> "HfApi":
    """The client, under the name of wszoo."""
    from huggingface_hub import HfApi

    return HfApi(library_name="wszoo")


def files_of(api: "HfApi", repo_id: str, kind: str, commit: str) -> dict[str, Any]:
    """Every file of a commit, by path.

    Raises:
        ZooError: if there are more than any zoo has.
    """
    from huggingface_hub import RepoFile

    def listed() -> list[Any]:
        tree = api.list_repo_tree(repo_id, repo_type=kind, revision=commit, recursive=True)
        return list(itertools.islice(tree, bounds.LISTED_FILES + 1))

    # The client repeats the pages after the first one, and the first one in some versions.
    with bounds.at_most(bounds.ANSWER_BYTES):
        entries = retrying(listed)
    if len(entries) > bounds.LISTED_FILES:
        raise ZooError(f"{repo_id} has more than {bounds.LISTED_FILES:,} files: it is no zoo")
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    for file in files:
        # The client takes them as they come.
        if not isinstance(file.path, str) or type(file.size) is not int or file.size < 0:
            what = f"{file.path!r:.80} of {file.size!r:.40} bytes"
            raise ZooError(f"the Hub lists no files of {repo_id}, but {what}")
    return {file.path: file for file in files}


def fetch(
    repo_id: str,
    file: str,
    revision: str,
    *,
    most: int,
    folder: Path | None = None,
    force: bool = False,
    kind: str = "dataset",
    ended: threading.Event | None = None,
) -> Path:
    """A file of a repository, of at most so many bytes, in `folder` or the Hub's cache."""
    from huggingface_hub import hf_hub_download

    def download() -> str:
        return hf_hub_download(
            repo_id,
            file,
            repo_type=kind,
            revision=revision,
            local_dir=folder,
            force_download=force,
            library_name="wszoo",
        )

    # Also an answer that is an error has to fit.
    with bounds.at_most(max(most, 1 << 20), answers=100, ended=ended):
        return Path(retrying(download))


def fetch_all(
    repo_id: str,
    files: Sequence[File],
    revision: str,
    folder: Path | None = None,
    base: str = "",
) -> Iterator[tuple[File, Path]]:
    """Files of a repository under `base`, several side by side, each as it arrives.

    One call of `snapshot_download` for all of them would ask for the list of files once more,
    and match each of them against each name.
    """
    waiting: queue.SimpleQueue[File] = queue.SimpleQueue()
    arrived: queue.SimpleQueue[tuple[File, Path | BaseException]] = queue.SimpleQueue()
    ended = threading.Event()
    for file in files:
        waiting.put(file)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not ended.is_set():
                file = waiting.get_nowait()
                try:
                    more: dict[str, Any] = {"folder": folder, "ended": ended}
                    place = fetch(repo_id, base + file.file, revision, most=file.bytes, **more)
                    arrived.put((file, place))
                except BaseException as error:
                    arrived.put((file, error))

    count = min(SIDE_BY_SIDE, len(files))
    threads = [threading.Thread(target=work, daemon=True, name="wszoo-fetch") for _ in range(count)]
    for thread in threads:
        thread.start()
    patience = 2.0  # of a stop; what goes on then dies with the process
    try:
        for _ in files:
            file, found = arrived.get()
            if isinstance(found, BaseException):
                raise found
            yield file, found
    except Exception:
        # They write into a folder that somebody may now remove or fill anew.
        patience = bounds.WAIT_S + bounds.READ_TIMEOUT_S
        raise
    finally:
        ended.set()
        until = time.monotonic() + patience
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def fetch_index(repo_id: str, revision: str, hasty: bool = False, base: str = "") -> Path:
    """The index, new if it changed; without a network the one in the cache.

    Args:
        base: what its name begins with.
        hasty: ask once, for three seconds: it may well be no repository that is meant.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError

    more: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
    file = base + INDEX_FILE
    with bounds.at_most(INDEX_BYTES, answers=100):
        if not isinstance(try_to_load_from_cache(repo_id, file, **more), str):
            # The client would ask for half a minute whether there is a network by now.
            _ask_for(repo_id, file, revision, hasty)
        try:
            return Path(hf_hub_download(repo_id, file, library_name="wszoo", **more))
        except Exception as error:
            # The client itself turns to the cache for some of these, but not all.
            if not is_transient(error):
                raise
            failure = error
    with contextlib.suppress(LocalEntryNotFoundError):
        return Path(hf_hub_download(repo_id, file, local_files_only=True, **more))
    if hasty or _is_unreachable(failure):
        raise failure
    return fetch(repo_id, file, revision, most=INDEX_BYTES)


def _ask_for(repo_id: str, file: str, revision: str, hasty: bool) -> None:
    """Raise what the client raises if nobody answers, and little else."""
    from huggingface_hub import constants, get_hf_file_metadata, get_token, hf_hub_url

    if constants.is_offline_mode():  # it says so by itself
        return
    url = hf_hub_url(repo_id, file, repo_type="dataset", revision=revision)
    for last in (hasty, True):
        try:
            get_hf_file_metadata(
                url, token=get_token(), timeout=3 if hasty else 10, library_name="wszoo"
            )
            return
        except Exception as error:
            if hasty or (last and _is_unreachable(error)):
                raise
            if not _is_unreachable(error):
                return  # the client repeats it, or says the same
            wait(error, 0)


def retrying(call: Callable[[], Result]) -> Result:
    """The result of a call that the client itself does not repeat."""
    for attempt in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            # Without a network somebody waits for the line that says so.
            if not is_transient(error) or (attempt > 1 and _is_unreachable(error)):
                raise
            wait(error, attempt)
    return call()


def _is_unreachable(error: BaseException) -> bool:
    """Whether no connection came about: no network, no such host, nobody listens."""
    return type(cause_of(error)).__name__ in ("ConnectError", "ConnectTimeout")


def cause_of(error: BaseException) -> BaseException:
    """What went wrong on the wire, beneath the client's wrapping."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wrapped = isinstance(error, RuntimeError | LocalEntryNotFoundError)
    if wrapped and not isinstance(error, HfHubHTTPError) and error.__cause__ is not None:
        return cause_of(error.__cause__)
    return error


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HfHubHTTPError

    error = cause_of(error)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT
    # A gateway's error page where the client expects JSON.
    return isinstance(error, _http_error() | json.JSONDecodeError) and not isinstance(
        error, errors.OfflineModeIsEnabled
    )


def _http_error() -> type[Exception]:
    """What the client's HTTP library raises: httpx or httpx2, by its version."""
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def is_refusal(error: BaseException) -> bool:
    """Whether the Hub said that it did not even try."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, HfHubHTTPError) and error.response.status_code in (429, 503)


def wait(error: BaseException, attempt: int) -> None:
    """Wait as long as the Hub asks for (a minute at most), else longer every time."""
    response = getattr(cause_of(error), "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    time.sleep(min(float(asked), 60) if asked.isdigit() else min(2.0**attempt, 8))


@contextlib.contextmanager
def speaking(repo_id: str, kind: str, revision: str | None) -> Iterator[None]:
    """Turn what the client raises into one line, and keep its own bars and logs away.

    Raises:
        ZooError: for whatever goes wrong between here and the repository.
        ValueError: misuse that the client finds.
    """
    import logging

    import huggingface_hub.utils
    from huggingface_hub.errors import HFValidationError

    utils: Any = huggingface_hub.utils  # its stubs hide the three functions used here

    log = logging.getLogger("huggingface_hub")
    level = log.level
    shown = not utils.are_progress_bars_disabled()
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # where the environment decides
            utils.disable_progress_bars()
        with bounds.watching():
            yield
    except (ZooError, HFValidationError):
        raise
    except ValueError as error:
        if type(error) is ValueError and error.__traceback__ and not _from_client(error):
            raise
        raise _explained(error, repo_id, kind, revision) from _shown(error)
    except (KeyError, TypeError, AttributeError) as error:
        if not _from_client(error):
            raise
        # It read an answer of another form than the Hub's.
        strange = json.JSONDecodeError("no such field", "", 0)
        raise _explained(strange, repo_id, kind, revision) from _shown(error)
    except (OSError, RuntimeError, _http_error()) as error:
        raise _explained(error, repo_id, kind, revision) from _shown(error)
    finally:
        log.setLevel(level)
        if shown:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                utils.enable_progress_bars()


def _shown(error: BaseException) -> BaseException | None:
    """The error, for a traceback; None if a secret stands in it, or in one beneath it."""
    from huggingface_hub import get_token

    step: BaseException | None = error
    while step is not None:
        if without_secrets(str(step), [get_token()]) != str(step):
            return None
        step = step.__cause__ or step.__context__
    return error


def _from_client(error: BaseException) -> bool:
    """Whether it was raised outside of this package."""
    step = error.__traceback__
    name = ""
    while step is not None:
        name = str(step.tb_frame.f_globals.get("__name__", ""))
        step = step.tb_next
    return name.partition(".")[0] != "zoo"


def _explained(error: Exception, repo_id: str, kind: str, revision: str | None) -> HubError:
    """The one line for an error of the client."""
    from huggingface_hub import constants, errors, get_token

    # User names and passwords may stand before the host.
    host = urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]
    where = f"{kind} {repo_id}"
    cause = cause_of(error)
    token = get_token()
    code = cause.response.status_code if isinstance(cause, errors.HfHubHTTPError) else None
    said, absent = "", False
    if isinstance(cause, errors.HfHubHTTPError):
        said = safe_line(without_secrets(cause.server_message or "", [token]), _SAID)
        said = f": {said}" if said else ""
    if isinstance(cause, errors.GatedRepoError):
        line = f"{where} asks you to accept its terms first, at {host}/{repo_id}"
    elif isinstance(cause, errors.RepositoryNotFoundError):
        absent = True
        login = "" if token else "; if it is private, log in with `hf auth login`"
        line = f"{host} shows no {where}{' to this token' if token else ''}{login}"
    elif isinstance(cause, errors.RevisionNotFoundError):
        line = f"{where} has no revision {revision!r}"
    elif isinstance(cause, errors.RemoteEntryNotFoundError):
        line = f"{where} holds no {INDEX_FILE} at {revision or MAIN}: it is no zoo"
    elif isinstance(cause, errors.OfflineModeIsEnabled):
        absent = True
        line = f"{where} is not in the cache, and HF_HUB_OFFLINE forbids to ask {host}"
    elif code == 401:
        line = f"{host} does not know the token (401); log in again with `hf auth login`"
    elif code == 403:
        line = (
            f"the token may not do this to {where} (403){said}; log in with one that may write, "
            "by `hf auth login`"
        )
    elif code == 412:
        line = f"{where} was changed by someone else during this push (412); run the same again"
    elif code == 429:
        line = f"{host} asks to slow down (429){said}; wait, then run the same command again"
    elif code is not None and code >= 500:
        line = f"{host} fails ({code}){said}; what it has is kept: run the same command again later"
    elif code is not None:
        line = f"{host} refuses {where} ({code}){said}"
    elif isinstance(cause, _http_error()):
        absent = True
        what = safe_line(without_secrets(str(cause), [token]), _SAID) or type(cause).__name__
        line = f"cannot reach {host} for {where} ({what}){KEPT}: run the same command again"
    elif isinstance(cause, json.JSONDecodeError):
        line = f"{host} does not answer as the Hub does{KEPT}: try again later"
    elif isinstance(cause, OSError) and cause.errno is not None:
        line = f"cannot use {cause.filename or where}: {cause.strerror}"
    else:
        what = safe_line(without_secrets(str(cause), [token]), _SAID)
        line = f"{where}: {what or type(cause).__name__}"
    return HubError(safe_line(without_secrets(line, [token])), absent)
