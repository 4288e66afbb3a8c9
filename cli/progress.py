"""How far a command is, on stderr: a bar on a terminal, elsewhere a line a minute.

The lines come whether or not anything has moved, so that the log of a batch system shows
that the command lives. Nothing here ends a command: a closed stderr or a full disk behind it
only costs the lines.
"""

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from zoo import machine, stopping
from zoo.errors import visible, without_secrets

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_S = 60.0


def tell(line: str) -> None:
    """Write a line of news to stderr, above a bar if one is shown."""
    if sys.stderr is None:
        return
    from tqdm import tqdm

    with contextlib.suppress(OSError, ValueError):
        tqdm.write(visible(without_secrets(line)), file=sys.stderr)


def tell_notices() -> None:
    """Have what is optional and missing on this machine said in a plain line."""
    others = warnings.showwarning

    def show(message: Any, category: type[Warning], *more: Any, **named: Any) -> None:
        if issubclass(category, machine.Notice):
            tell(f"Warning: {message}")
        else:
            others(message, category, *more, **named)

    setattr(warnings, "showwarning", show)  # noqa: B010  # mypy wants every argument named


@contextlib.contextmanager
def shown(what: str, unit: str, how_to_go_on: Callable[[], str]) -> Iterator["Meter"]:
    """A meter for what a command does; a stop in here says how to go on.

    Args:
        what: the work, for the lines, such as a folder that is made.
        unit: of what is counted; "B" are bytes.
        how_to_go_on: see `zoo.stopping.telling`.
    """
    meter = Meter(what, unit)
    with stopping.telling(how_to_go_on):
        try:
            yield meter
        finally:
            meter.close()


@dataclass
class _Phase:
    """What is counted at present: a bar's worth."""

    label: str
    unit: str
    total: float | None
    began: float
    initial: float
    done: float
    words: str = ""


class Meter:
    """Shows how far the work is; see `shown`."""

    def __init__(self, what: str, unit: str):
        self.what, self.unit = what, unit
        self.phase: _Phase | None = None
        self.bar: tqdm[NoReturn] | None = None
        self.begun = time.monotonic()
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self.tty = _is_terminal()
        if not self.tty:
            threading.Thread(target=self._speak, daemon=True, name="wszoo-progress").start()

    def update(
        self,
        done: float,
        total: float | None,
        *,
        label: str = "",
        unit: str | None = None,
        words: str = "",
        found: bool = False,
    ) -> None:
        """Show that `done` of `total` is done.

        Args:
            label: of a part of the work, which has a bar of its own.
            words: more to be said beside the numbers.
            found: all of this was there before, so it does not count as speed.
        """
        with self.lock:
            if self.phase is None or self.phase.label != label:
                self._end()
                now = time.monotonic()
                self.phase = _Phase(label, unit or self.unit, total, now, done, done)
                self.bar = self._new_bar(self.phase)
            phase = self.phase
            phase.done, phase.total, phase.words = done, total, words
            if found:
                phase.initial = done
            if self.bar is not None:
                with contextlib.suppress(OSError, ValueError):
                    self.bar.total = total
                    if found:
                        self.bar.initial = self.bar.n = done
                    self.bar.set_postfix_str(words, refresh=False)
                    self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Leave the last state standing."""
        with self.lock:
            self._end()
            self.closed.set()

    def _end(self) -> None:
        """End a phase; in a log one that was long leaves a line."""
        if self.bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self.bar.close()
            self.bar = None
        if self.phase is not None and not self.tty:
            if time.monotonic() - self.phase.began >= LINE_S:
                tell(self._line())
            self.phase = None

    def _new_bar(self, phase: _Phase) -> "tqdm[NoReturn] | None":
        if not self.tty:
            return None
        from tqdm import tqdm

        scale: dict[str, Any] = {"unit_scale": True, "unit_divisor": 1000}
        with contextlib.suppress(OSError, ValueError):
            return tqdm(
                total=phase.total,
                initial=phase.initial,
                desc=phase.label or None,
                unit=phase.unit,
                smoothing=0.05,
                dynamic_ncols=True,
                **(scale if phase.unit == "B" else {}),
            )
        return None

    def _speak(self) -> None:
        while not self.closed.wait(LINE_S):
            with self.lock:
                if not self.closed.is_set():
                    tell(self._line())

    def _line(self) -> str:
        """What is done, and how long it took and will take."""
        now, phase = time.monotonic(), self.phase
        begun = duration(now - self.begun)
        if phase is None:
            return f"{self.what}: at work for {begun}"
        name = f"{self.what}, {phase.label}" if phase.label else self.what
        words = [_amount(phase)]
        words += [phase.words] if phase.words else []
        words.append(f"{begun} so far")
        fresh = phase.done - phase.initial
        if phase.total is not None and fresh > 0 and phase.done < phase.total:
            left = (phase.total - phase.done) / fresh * (now - phase.began)
            words.append(f"about {duration(left)} left")
        return f"{name}: {', '.join(words)}"


def _amount(phase: _Phase) -> str:
    """How much is done.

    >>> _amount(_Phase("", "net", 70000, 0.0, 0, 1234))
    '1,234 of 70,000 net (1%)'
    >>> _amount(_Phase("", "B", None, 0.0, 0, 2.5e6))
    '2.5 MB'
    """
    if phase.unit == "B":
        numbers = [f"{n / 1e6:,.1f}" for n in (phase.done, phase.total) if n is not None]
        unit = "MB"
    else:
        numbers = [f"{n:,.0f}" for n in (phase.done, phase.total) if n is not None]
        unit = phase.unit
    share = f" ({int(100 * phase.done / phase.total)}%)" if phase.total else ""
    return f"{' of '.join(numbers)} {unit}{share}"


def duration(seconds: float) -> str:
    """A time in words, to the nearest minute from one minute on.

    >>> duration(59), duration(130), duration(179), duration(7300)
    ('59 s', '2 min', '3 min', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # None, or closed
        return False
