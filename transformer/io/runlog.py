"""What a program and a person see of a run: metrics.jsonl, TensorBoard events and the progress line."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from transformer.io.event_file import EventFile
from transformer.io.goodput import Goodput
from transformer.io.metrics_file import NAME, MetricsFile, read_metrics
from transformer.io.progress import Progress, duration

__all__ = ["RunLog", "read_metrics"]

_SHORTEST_WINDOW = 20  # steps that rates are taken over, at least


class _Step(NamedTuple):
    """One optimizer step: seconds of training time at its end, tokens without padding, seconds of waiting.

    Not `timed`: it was done while the program was busy, and its seconds are in no training time.
    """

    time: float
    tokens: float
    data_wait: float
    timed: bool


class RunLog:
    """Writes down what happens in a run; exactly one process of a run has one.

    Attributes:
      reached: the last step that an earlier process logged; 0: none.
    """

    def __init__(
        self,
        workdir: Path,
        num_steps: int,
        resume_step: int | None = 0,
        log_every: int = 50,
        goodput: Goodput | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens the log; what an earlier process wrote about steps that will be done again is taken out.

        Args:
          workdir: the run's directory; made if missing.
          num_steps: optimizer steps of the whole run.
          resume_step: steps that the restored state has done; 0 or None: a fresh run.
          log_every: steps between lines of metrics.jsonl for the training split.
          goodput: where the time of `busy` is counted.
          stream: where a person reads; None: standard error.
          clock: returns seconds that only grow.
        """
        workdir.mkdir(parents=True, exist_ok=True)
        self._num_steps = num_steps
        self._log_every = log_every
        self._clock = clock
        self._goodput = goodput or Goodput(clock)
        self._progress = Progress(stream, clock)
        self._start = clock()
        self._window: deque[_Step] = deque(maxlen=max(log_every, _SHORTEST_WINDOW) + 1)
        resume_step = resume_step or 0
        self._file = MetricsFile(workdir, resume_step, clock)
        self.reached = self._file.reached
        for reason, count in self._file.removed.items():
            self.note(f"{NAME}: removed {count} line{'s' if count > 1 else ''} {reason}")
        self._events = EventFile(workdir / "tensorboard", resume_step + 1 if resume_step else 0, clock)
        self._failing: set[Path] = set()
        self._tell_failures()

    def note(self, message: str) -> None:
        """Tells the person at the keyboard something, in a line of its own."""
        self._progress.note(message)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Shows that the program is, for instance, "compiling"; the time does not count as training time."""
        with self._progress.busy(what), self._goodput.spent(what):
            yield

    def go_back(self, step: int, reached: int) -> None:
        """Takes out what was written about the steps after `step`, up to `reached`: they are done again."""
        self.reached = max(self.reached, reached)
        self._file.go_back(step)
        self._events.begin_at(step + 1 if step else 0)
        self._tell_failures()

    def train(self, step: int, metrics: Mapping[str, float], timed: bool = True) -> None:
        """Logs one optimizer step; call it for every step.

        The file and TensorBoard get every `log_every`-th step and the last one, with the values of that very
        step and `tokens_per_second`: source and target tokens over the training time of the steps in a moving
        window. The first step after a start has no step before it to measure from, so its rate counts from
        the start of the log, compilation included.

        Args:
          step: steps done, this one included.
          metrics: loss and nll (nats a target token), learning_rate, gradient_norm, source_tokens and
            target_tokens (without padding), data_wait (seconds waited for the batch); others are welcome.
          timed: false for a step that was computed within `busy`: its tokens are in no rate.
        """
        now = self._clock()
        tokens = metrics["source_tokens"] + metrics["target_tokens"]
        self._window.append(_Step(now - self._progress.paused, tokens, metrics["data_wait"], timed))
        first, *later = self._window
        seconds = later[-1].time - first.time if later else now - self._start
        counted = [s for s in later if s.timed] if later else [first]
        rate = sum(s.tokens for s in counted) / seconds if counted and seconds > 0 else math.nan
        last = step == self._num_steps
        if last or step % self._log_every == 0:
            self._numbers("train", step, {**metrics, "tokens_per_second": rate})
        parts = [f"step {step:,}/{self._num_steps:,}"]
        if later and counted:
            parts.append(f"{duration(seconds / len(counted) * (self._num_steps - step))} left")
        parts.append(f"loss {metrics['loss']:.3f}  ppl {_perplexity(metrics['nll']):.4g}")
        parts.append(f"{rate:,.0f} tokens/s")
        if later:
            waited = sum(s.data_wait for s in later) / seconds if seconds > 0 else math.nan
            parts.append(f"data wait {waited:.0%}")
        parts.append(f"lr {metrics['learning_rate']:.2e}  grad norm {metrics['gradient_norm']:.3g}")
        self._progress.show("  ".join(parts), last=last)

    def scores(self, split: str, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """Logs an evaluation everywhere; text, such as a signature, goes to the file only.

        Args:
          split: "dev" or the name of a test set.
          step: steps done by the evaluated weights.
          metrics: name -> value.
        """
        self._numbers(split, step, metrics)
        numbers = [
            f"{key} {value:,d}" if isinstance(value, int) else f"{key} {value:.4g}"
            for key, value in metrics.items()
            if not isinstance(value, str)
        ]
        self.note(f"{split} at step {step:,}: {'  '.join(numbers)}")

    def record(self, split: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes a line to metrics.jsonl only, in place of an older one of this split and step.

        Args:
          split: what the values are about: "data", for example.
          step: steps done.
          values: numbers, text, lists and mappings of them.

        Raises:
          ValueError: if `values` has a key "split" or "step", or something that is no JSON.
        """
        self._file.record(split, step, values)
        self._tell_failures()

    def close(self) -> None:
        """Writes out everything and leaves the last progress line on the screen."""
        for file in (self._file, self._events):
            if file.waiting:
                file.write_out(at_once=True)
        self._tell_failures()
        for file in (self._file, self._events):
            if missing := len(file.waiting) + file.lost:
                self.note(
                    f"warning: {file.path}: {missing:,} entr{'ies are' if missing > 1 else 'y is'} missing"
                )
        self._progress.close()

    def _numbers(self, split: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes a line to the file, and its numbers to TensorBoard as split/key."""
        self._file.record(split, step, values)
        numbers = {f"{split}/{key}": float(v) for key, v in values.items() if not isinstance(v, str)}
        self._events.numbers(step, numbers)
        self._tell_failures()

    def _tell_failures(self) -> None:
        """Says once that files cannot be written and why, and once that all can be written again."""
        failing = {f.path: f.error.strerror or str(f.error) for f in (self._file, self._events) if f.error}
        if failing and not self._failing:
            reasons = " and ".join(sorted(set(failing.values())))
            self.note(
                f"warning: {_listed(failing)} cannot be written: {reasons}; training goes on, "
                "and what belongs there is kept in memory until it can"
            )
        elif self._failing and not failing:
            self.note(f"{_listed(self._failing)}: written again, with what was kept in memory")
        self._failing = self._failing | failing.keys() if failing else set()


class SilentLog(RunLog):
    """The log of a process that is not the first: it counts where time goes, and tells nobody."""

    def __init__(self, goodput: Goodput) -> None:
        self._goodput = goodput
        self.reached = 0

    def note(self, message: str) -> None:
        """Says nothing: the first process does."""

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Counts the time."""
        with self._goodput.spent(what):
            yield

    def go_back(self, step: int, reached: int) -> None:
        """Has nothing to take out."""

    def train(self, step: int, metrics: Mapping[str, float], timed: bool = True) -> None:
        """Writes nothing."""

    def scores(self, split: str, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """Writes nothing."""

    def record(self, split: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Has nothing open."""


def _perplexity(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf


def _listed(paths: Iterable[Path]) -> str:
    return " and ".join(map(str, sorted(paths)))
