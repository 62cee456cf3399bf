"""`Net`: a function wrapped so that its ranges accumulate, call after call, until somebody asks.

For those who come from Caffe2: of OutputMinMaxNetObserver, `get_info`, `dump_and_reset`, `stop` and
`tm` are here under their names, `drop` is `close`; of OutputMinMaxObserver, which observed one
operator, `net[name]` has `get_info` and `stop`, and `drop` is `stop` without `resume`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import jax

from jax_ranges.births.birth import Birth
from jax_ranges.births.statistic import Births
from jax_ranges.births.watch import watches
from jax_ranges.caller import Caller
from jax_ranges.dumps import Dumps, time_stamp
from jax_ranges.files import File
from jax_ranges.ranges import Range, Ranges
from jax_ranges.recorder import Recorder
from jax_ranges.site import Select
from jax_ranges.taken import RANGES_ONLY, Stats
from jax_ranges.transform import Options


class Net:
    """A function whose ranges accumulate over its calls.

    Calls return what `fun` returns. What they see stays on the device, merged into accumulators
    by the same dispatch that runs `fun`, and is fetched when somebody asks. The window is what
    was seen since the last reset (`dump_and_reset`, or a dump that `dump_every` made), the total
    all there was.

    Args:
      fun: any function that JAX can trace, jitted or not. It runs jitted as a whole. Arguments
        that are not arrays (strings, flags, integers unless `fun` is jitted, functions) are
        static: each new value of one compiles anew. A callable pytree (an equinox or flax nnx
        module) and the module of a bound method are arguments like others, so their arrays may
        change between calls; what nnx modules write into their variables is written.
      dump_file: where `close` writes the total, if there were any calls. The ending decides the
        format: `.json`, `.csv`, or (`.txt`, `.minmax`, none) the lines of Caffe2's observer,
        `op_index op_type output_idx tensor_name min max`. What a format has no place for is left
        out, with a LossWarning: see `jax_ranges.files`.
      dump_every: after so many calls write the window to `<stem>_<k><ext>`, k = 1, 2, ..., and
        reset it. Another thread writes; calls do not wait.
      delimiter: between the fields of a line; Caffe2's own reader takes white space only.
      every: observe one call in so many; the others go straight to `fun`.
      stats, select, inputs, loops: as in `jr.ranges`.
      births: find where NaNs and infinities are born, for `births()`. The ranges of all sites are
        taken for that, also if fewer are asked for. `watch`: as in `jr.find_nonfinite`.

    A forked process (`os.fork`, multiprocessing's "fork") has no part in it: JAX cannot run there.
    At its end it writes no file, and waits for nothing.

    Raises:
      TypeError: `fun` is not callable; when called, an argument that is neither array nor
        hashable, or a call inside jit, grad or vmap (use `jr.ranges` there).
      ValueError: an option that makes no sense, or an ending of a file that no format has.
      RuntimeError: it is called, read or dumped in a fork of the process that made it.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> net = jr.Net(lambda x: jnp.tanh(x) * 2)
      >>> for x in (0.5, 1.0, -3.0):
      ...     y = net(jnp.full(4, x))
      >>> net.get_info()["mul"]
      Range(min=-1.9901094, max=1.5231884, nan=False)
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        dump_file: File | None = None,
        dump_every: int | None = None,
        delimiter: str = " ",
        every: int = 1,
        stats: Stats = RANGES_ONLY,
        select: Select = None,
        inputs: bool = False,
        loops: str = "merge",
        births: bool = False,
        watch: str | Iterable[str] = (),
    ):
        usage = "jr.Net wraps a function: net = jr.Net(f)"
        found = Births(watches(watch)) if births or watch else None
        options = Options(fun, stats, select, inputs, loops, usage, found)
        if dump_every is not None and dump_file is None:
            raise ValueError(f"dump_every={dump_every} needs a dump_file to number the dumps of")
        self._fun = fun
        self._every = _positive("every", every)
        self._dump_every = None if dump_every is None else _positive("dump_every", dump_every)
        self._calls = itertools.count(1)  # its next() is atomic
        self._stopped = False
        self._finds_births = found is not None
        self._recorder = Recorder(options.name)
        self._observed = Caller(fun, options, self._recorder)
        self._dumps = Dumps(
            self._recorder, dump_file, delimiter, options.stats, windows=dump_every is not None
        )
        # At interpreter exit too. It must not lead to this object or to the function, which may
        # be a method of what holds this object: they would live for ever.
        self._close = weakref.finalize(self, _close_if_ours, self._recorder, self._dumps)
        self._close.atexit = False
        atexit.register(self._close)
        functools.update_wrapper(self, fun, updated=())

    # -- calls ----------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._stopped:
            return self._fun(*args, **kwargs)
        self._recorder.require_ours()
        number = next(self._calls)
        if (number - 1) % self._every:
            out = self._fun(*args, **kwargs)
        else:
            out = self._observed(args, kwargs, number)
        if self._dump_every is not None and number % self._dump_every == 0:
            self._dumps.next_window(number // self._dump_every)
        return out

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a decorator of a method: what its calls see, of all instances, accumulates here."""
        return self if instance is None else types.MethodType(self, instance)

    def stop(self) -> None:
        """From now on calls go straight to the function. What was seen is kept.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> net = jr.Net(jnp.square)
          >>> y = net(3.0)
          >>> net.stop()
          >>> y = net(100.0)
          >>> net.get_info()["square"]
          Range(min=9.0, max=9.0, nan=False)
        """
        self._stopped = True

    def resume(self) -> None:
        """Observe again.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> net = jr.Net(jnp.square)
          >>> net.stop()
          >>> net.resume()
          >>> y = net(3.0)
          >>> net
          jr.Net(square, observing)
        """
        if not self._close.alive:
            raise ValueError("this jr.Net is closed; wrap the function anew to observe it again")
        self._stopped = False

    # -- reading --------------------------------------------------------------------------

    def get_info(self, total: bool = False) -> Ranges:
        """The ranges so far, on the host: of the window, or of all calls.

        Waits for the calls that were made; there are no sites before the first one.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> net = jr.Net(jnp.square)
          >>> net.get_info()
          Ranges: 0 sites
          >>> y = net(3.0)
          >>> net.get_info()["square"]
          Range(min=9.0, max=9.0, nan=False)
        """
        return self._recorder.read(total)

    def __getitem__(self, name: str) -> Observer:
        """The observer of one operation, by the name of its site; UnknownSiteError if none."""
        self.get_info(total=True)[name]
        return Observer(self._recorder, self._observed, name)

    def tm(self) -> str:
        """The time stamp that a dump made now has: UTC, `20261231T235959Z` (ISO 8601, basic).

        Example:
          >>> import jax_ranges as jr
          >>> len(jr.Net(abs).tm())
          16
        """
        return time_stamp()

    def births(self) -> tuple[Birth, ...]:
        """Where NaNs and infinities were born in all calls so far: escaped ones first.

        Of several births of one kind at one site the first that got farthest; `birth.call` is the
        number of its call.

        Raises:
          ValueError: the net was not made with `births=True`.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> net = jr.Net(jnp.log, births=True)
          >>> for x in (2.0, 1.0, 0.0, -1.0):
          ...     y = net(jnp.full(3, x))
          >>> [(birth.kind, birth.call, birth.count) for birth in net.births()]
          [('nan', 4, 3), ('-inf', 3, 3)]
        """
        if not self._finds_births:
            raise ValueError(f"{self!r} looks for no births: make it as jr.Net(f, births=True)")
        return self._recorder.births()

    # -- dumping --------------------------------------------------------------------------

    def dump(self, file: File | None = None, total: bool = False) -> None:
        """Write the window (or the total) to a file, by default to `dump_file`.

        The ending decides the format, as that of `dump_file` does.

        Raises:
          ValueError: no file is given, and there is no `dump_file`; or no format has its ending.
          OSError: it cannot be written; nothing is lost.

        Example:
          >>> import pathlib, tempfile
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> net = jr.Net(jnp.square)
          >>> y = net(3.0)
          >>> file = pathlib.Path(tempfile.mkdtemp(), "now.txt")
          >>> net.dump(file)
          >>> print(file.read_text(), end="")
          0 square 0 square 9 9
        """
        self._dumps.write(self.get_info(total), file)

    def dump_and_reset(self, file: File | None = None) -> None:
        """Write the window to a file and begin a new one. If writing fails, it goes on.

        Example:
          >>> import pathlib, tempfile
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> net = jr.Net(jnp.square)
          >>> y = net(3.0)
          >>> net.dump_and_reset(pathlib.Path(tempfile.mkdtemp(), "first.json"))
          >>> y = net(2.0)
          >>> net.get_info()["square"], net.get_info(total=True)["square"]
          (Range(min=4.0, max=4.0, nan=False), Range(min=4.0, max=9.0, nan=False))
        """
        self._recorder.require_ours()  # before it waits for a thread
        self._dumps.window(file)

    def close(self) -> None:
        """Write the total to `dump_file`, if there is one, and stop. `get_info` still works.

        Example:
          >>> import pathlib, tempfile
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> file = pathlib.Path(tempfile.mkdtemp(), "run.json")
          >>> net = jr.Net(jnp.square, dump_file=file)
          >>> y = net(3.0)
          >>> net.close()
          >>> jr.load(file)["square"]
          Range(min=9.0, max=9.0, nan=False)
        """
        self._stopped = True
        atexit.unregister(self._close)
        self._close()

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- showing --------------------------------------------------------------------------

    def report(self, total: bool = True, **how: Any) -> None:
        """Print the ranges so far; `how` as in `jr.report` (sort, tree, select, limit, console).

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> from rich.console import Console
          >>> net = jr.Net(lambda x: jnp.square(x) * 2)
          >>> y = net(3.0)
          >>> net.report(sort="amax", limit=1, console=Console(width=60, color_system=None))
          site  shape  dtype  min      max  nan  2³                2⁵
          ────────────────────────────────────────────────────────────
          mul   []     f32     18       18       ███████████▊
          … 1 more
          2 sites, largest first · largest 18 at mul
        """
        from jax_ranges.report.console import report

        report(self.get_info(total), **how)

    def live(self, total: bool = True, per_second: float = 2, **how: Any) -> Any:
        """Redraw the report while the body of a `with` statement runs; `how` as in `jr.report`.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> import io
          >>> from rich.console import Console
          >>> net = jr.Net(jnp.square)
          >>> screen = Console(file=io.StringIO())  # by default the terminal
          >>> with net.live(sort="amax", limit=20, console=screen):
          ...     for batch in (1.0, 3.0):
          ...         y = net(batch)
          >>> "square" in screen.file.getvalue()
          True
        """
        from jax_ranges.report.live import live

        return live(lambda: self.get_info(total), per_second, **how)

    def calibrate(self, batches: Iterable[Any]) -> Ranges:
        """Call the function on every batch, showing the progress; returns the total.

        A batch that is a tuple is all the positional arguments, anything else the only one.
        Ctrl-C ends it early, with what was seen so far.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> net = jr.Net(lambda x, y: x @ y)
          >>> net.calibrate([(jnp.ones(2), jnp.ones(2)), (jnp.ones(3), jnp.ones(3))])["dot_general"]
          Range(min=2.0, max=3.0, nan=False)
        """
        from jax_ranges.report.progress import progress

        if self._stopped:
            raise ValueError(f"{self!r} observes nothing: call resume() before calibrate()")
        last = None
        with contextlib.suppress(KeyboardInterrupt):
            for batch in progress(batches, self._recorder.name):
                out = self(*batch) if isinstance(batch, tuple) else self(batch)
                # One call ahead of the device: more would fill its memory with waiting batches.
                jax.block_until_ready(last)
                last = out
        return self.get_info(total=True)

    def __repr__(self) -> str:
        state = "closed" if not self._close.alive else "stopped" if self._stopped else "observing"
        return f"jr.Net({self._recorder.name}, {state})"

    def __str__(self) -> str:
        return f"{self!r}\n{self.get_info(total=True)!r}"

    def __rich__(self) -> Any:
        return self.get_info(total=True).__rich__()

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p><b>{escape(repr(self))}</b></p>{self.get_info(total=True)._repr_html_()}"


class Observer:
    """One operation of a net: what it has seen, and whether it goes on."""

    def __init__(self, recorder: Recorder, caller: Caller, name: str):
        self._recorder, self._caller = recorder, caller
        self.name = name

    def get_info(self, total: bool = False) -> Range:
        """The range of this operation so far: in the window, or in all calls."""
        return self._recorder.read(total)[self.name]

    def stop(self) -> None:
        """Observe this operation no more. The next call compiles the program without it."""
        self._caller.excluded |= {self.name}

    def resume(self) -> None:
        """Observe it again. What it did in between is not known."""
        self._caller.excluded -= {self.name}

    def __repr__(self) -> str:
        state = "stopped" if self.name in self._caller.excluded else "observing"
        return f"Observer({self.name!r}, {state})"


def _close_if_ours(recorder: Recorder, dumps: Dumps) -> None:
    """A forked process neither writes its parent's file nor waits for its threads."""
    if recorder.is_ours():
        dumps.close()


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} counts calls: an integer of 1 or more; got {value!r}")
    return value
