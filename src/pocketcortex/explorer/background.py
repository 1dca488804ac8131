"""Work that goes on behind the page and makes way for whoever looks at it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_QUIET = 0.3
"""Seconds without a request after which work goes on."""
_LONGEST = 2.0
"""Seconds that one call of `Pacer.pause` waits at most."""


class Pacer:
    """Tells background work when to wait: while somebody's request is being answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._last, self.stopped = 0, 0.0, False

    @contextmanager
    def user(self) -> Iterator[None]:
        """Hold while a request computes."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._last = time.monotonic()

    def pause(self) -> None:
        """Wait while somebody is being answered, or was a moment ago.

        Raises
        ------
        InterruptedError
            If the work is to end.
        """
        until = time.monotonic() + _LONGEST
        while not self.stopped and time.monotonic() < until and self._busy():
            time.sleep(0.02)
        self.go_on()

    def go_on(self) -> None:
        """Do not wait, but end if the work is to end.

        Raises
        ------
        InterruptedError
            If it is.
        """
        if self.stopped:
            raise InterruptedError("the explorer is closing")

    def _busy(self) -> bool:
        with self._lock:
            return self._users > 0 or time.monotonic() - self._last < _QUIET


class Background:
    """One thread that does things by name, those asked for first.

    Parameters
    ----------
    names
        In order.
    work
        Does one; called with its name and with what to call between steps. What it raises is kept
        in `failures`, by name.
    prepare
        Called once before.
    """

    def __init__(
        self,
        names: Sequence[str],
        work: Callable[[str, Callable[[], None]], None],
        prepare: Callable[[Callable[[], None]], None],
    ) -> None:
        self.pacer = Pacer()
        self.failures: dict[str, str] = {}
        self._waiting = list(names)
        self._wanted: set[str] = set()
        self._lock = threading.Lock()
        self._work, self._prepare = work, prepare
        self._thread = threading.Thread(target=self._run, daemon=True, name="explorer")

    @property
    def n_waiting(self) -> int:
        """How many are not done yet."""
        with self._lock:
            return len(self._waiting)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step under way, and wait for it."""
        self.pacer.stopped = True
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def join(self, timeout: float | None = None) -> None:
        """Wait until everything is done."""
        self._thread.join(timeout)

    def first(self, name: str) -> None:
        """Do one before the others and without making way, if it is still to be done.

        Somebody waits for it, and so for what is under way before it.
        """
        with self._lock:
            self._wanted |= {name} & set(self._waiting)
            if name in self._waiting[1:]:
                self._waiting.remove(name)
                self._waiting.insert(min(1, len(self._waiting)), name)

    def _run(self) -> None:
        try:
            self._prepare(self._pause)
            while (name := self._next()) is not None:
                self._pause()
                self._do(name)
                with self._lock:
                    self._waiting.remove(name)
                    self._wanted.discard(name)
        except InterruptedError:
            return

    def _pause(self) -> None:
        if self._wanted:
            self.pacer.go_on()
        else:
            self.pacer.pause()

    def _next(self) -> str | None:
        with self._lock:
            return self._waiting[0] if self._waiting else None

    def _do(self, name: str) -> None:
        try:
            self._work(name, self._pause)
        except InterruptedError:
            raise
        except Exception as error:  # one bad model must not leave the others without pictures
            self.failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
