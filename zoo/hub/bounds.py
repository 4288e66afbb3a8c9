"""What a server may send: bounds that hold before anything of it is read.

The client reads whole answers into memory, waits as long as it is told to, and takes names of
files from headers. While `watching`, every answer to it is held against bounds: its size,
decompressed too, the pace at which it comes, how often it is begun anew, the waits it asks
for, and the headers that become names of files here. What goes too far is a ZooError.
"""

import contextlib
import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from zoo.errors import ZooError, safe_line

# Of the Hub's own answers, such as a page of names; the rest is far less.
ANSWER_BYTES = 32 << 20
# Of the list of all files of a repository.
LISTED_FILES = 250_000
# A server that sends less than this for so long sends nothing.
SLOW_S = 60.0
SLOW_BYTES_A_S = 1000
# Seconds that a server may ask to wait, and that an answer may take to begin.
WAIT_S = 60
READ_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 300.0

_NAME = re.compile(r"[\w.:-]{1,200}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GZIP = ("gzip", "x-gzip", "deflate")


@dataclass
class _Bound:
    """What is allowed, and what came so far."""

    most: int
    answers: int | None
    ended: threading.Event | None = None
    received: int = 0


# A thread of the client's own has none; then the usual one holds.
_bound: ContextVar[_Bound | None] = ContextVar("bound", default=None)
_watching = 0
_lock = threading.Lock()


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Watch every answer to the client, in every thread."""
    global _watching
    _install()
    with _lock:
        _watching += 1
    try:
        yield
    finally:
        with _lock:
            _watching -= 1


@contextlib.contextmanager
def at_most(
    most: int, answers: int | None = None, ended: threading.Event | None = None
) -> Iterator[None]:
    """Bound what this thread reads.

    Args:
        most: bytes of one answer.
        answers: how many there may be, redirections and those that broke off included; one
            more for every 100 kB that came. None counts none.
        ended: breaks the reading off, from another thread.
    """
    token = _bound.set(_Bound(most, answers, ended))
    try:
        with watching():
            yield
    finally:
        _bound.reset(token)


def _install() -> None:
    """Have the client's session, and those that follow it, watched."""
    from huggingface_hub.utils import _http

    make = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
    if getattr(make, "watched", False):
        return

    def watched() -> Any:
        session = make()
        hooks = session.event_hooks
        session.event_hooks = {
            **hooks,
            "request": [*hooks.get("request", []), _on_request],
            "response": [_on_response, *hooks.get("response", [])],
        }
        return session

    watched.watched = True  # type: ignore[attr-defined]
    _http.set_client_factory(watched)


def _on_request(request: Any) -> None:
    if not _watching:
        return
    _go_on(_bound.get())
    # Compressed, a small answer could be of any size.
    request.headers["Accept-Encoding"] = "identity"
    reads = request.method in ("GET", "HEAD")
    timeouts = request.extensions.setdefault("timeout", {})
    for kind in ("connect", "read", "write", "pool"):
        if timeouts.get(kind) is None:
            timeouts[kind] = READ_TIMEOUT_S if reads else WRITE_TIMEOUT_S


def _on_response(response: Any) -> None:
    if not _watching:
        return
    bound = _bound.get() or _Bound(ANSWER_BYTES, None)
    who = safe_line(f"{response.request.url.host}: {response.request.url.path}", 300)
    _check_headers(response, who)
    if bound.answers is not None:
        bound.answers -= 1
    if bound.answers is not None and bound.answers + bound.received // 100_000 < 0:
        raise ZooError(
            f"{who} breaks off, or leads in circles, again and again; what arrived is kept: run "
            "the same command again later"
        )
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity", *_GZIP):
        raise ZooError(f"{who} comes as {coding!r:.40}, which was not asked for")
    if response.request.method == "HEAD":
        return
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length[:20]) > bound.most:
        raise _too_much(who, int(length[:20]), bound.most)
    response.stream = _watched(response.stream, bound, coding in _GZIP, who)
    if coding in _GZIP:
        for name in ("Content-Encoding", "Content-Length"):
            response.headers.pop(name, None)


def _check_headers(response: Any, who: str) -> None:
    """Refuse what would become the name of a file, and shorten what would become a wait."""
    if response.request.method == "HEAD" and "X-Repo-Commit" in response.headers:
        for header, pattern in (
            ("ETag", _NAME), ("X-Linked-ETag", _NAME), ("X-Repo-Commit", _COMMIT),
        ):  # fmt: skip
            value = response.headers.get(header)
            if value is not None and not pattern.fullmatch(value.removeprefix("W/").strip('"')):
                raise ZooError(f"{who}: expected a name as {header}, got {value!r:.80}")
    wait = response.headers.get("Retry-After")
    if wait is not None and (not wait.isdigit() or len(wait) > 4 or int(wait) > WAIT_S):
        response.headers["Retry-After"] = str(WAIT_S)
    # The client would wait as long as this one says.
    response.headers.pop("RateLimit", None)


def _watched(stream: Any, bound: _Bound, compressed: bool, who: str) -> Any:
    """The same stream of bytes, decompressed, that ends with a ZooError where it goes too far."""

    class Watched(_stream_class(stream)):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            # 32: gzip or zlib, by what comes.
            inflate = zlib.decompressobj(32 + zlib.MAX_WBITS) if compressed else None
            begun, came, total = time.monotonic(), 0, 0
            for chunk in stream:
                _go_on(bound)
                bound.received += len(chunk)
                came += len(chunk)
                _check_pace(time.monotonic() - begun, came, who)
                if inflate is not None:
                    try:
                        chunk = inflate.decompress(chunk, bound.most - total + 1)
                    except zlib.error as error:
                        raise ZooError(f"{who} does not come as it says ({error})") from None
                total += len(chunk)
                if total > bound.most:
                    raise _too_much(who, None, bound.most)
                yield chunk

        def close(self) -> None:
            stream.close()

    return Watched()


def _go_on(bound: _Bound | None) -> None:
    if bound is not None and bound.ended is not None and bound.ended.is_set():
        raise ZooError("broken off: another file did not come")


def _check_pace(elapsed: float, came: int, who: str) -> None:
    if elapsed > SLOW_S and came < elapsed * SLOW_BYTES_A_S:
        raise ZooError(
            f"{who} comes by less than {SLOW_BYTES_A_S:,} bytes a second; what arrived before is "
            "kept: run the same command again later"
        )


def _stream_class(stream: Any) -> type:
    """What the client's HTTP library (httpx or httpx2, by its version) wants a stream to be."""
    return next(kind for kind in type(stream).__mro__ if kind.__name__ == "SyncByteStream")


def _too_much(who: str, size: int | None, most: int) -> ZooError:
    what = "more than that" if size is None else f"{size:,}"
    return ZooError(f"{who}: at most {most:,} bytes are read, the server has {what}")
