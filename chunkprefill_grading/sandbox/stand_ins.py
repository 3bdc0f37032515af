"""Stand-ins for what draws, shows or counts progress, so that a cell with a picture defines its answers."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

#: modules that a notebook draws and shows with: they take everything and do nothing
DRAWING = frozenset(
    (
        *("matplotlib", "seaborn", "plotly", "altair", "bokeh", "holoviews", "graphviz", "PIL", "rich"),
        *("mpl_toolkits", "matplotlib_inline", "pylab", "plotnine", "tabulate", "termcolor", "colorama"),
        *("IPython", "ipykernel", "ipywidgets", "google", "jupyter_core", "nest_asyncio", "tqdm"),
    )
)
HERE = "the sandbox has the standard library, numpy, chunkprefill, and torch where a problem set asks for it"

N_THINGS = 10  # how many a `Nothing` says that it holds: `colors[i % len(colors)]` divides by it


class Nothing:
    """Takes every call and every attribute, and does nothing; as a number it is 0, and it can be reckoned with.

    A cell that asks a picture how large it is, and draws by that, must not end before its answer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # a decorator such as `@interact(n=5)` gives its function back
        if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType):
            return args[0]
        return Nothing()

    def __getattr__(self, name: str) -> Any:
        return nothing(name)

    def __iter__(self) -> Iterator[Any]:
        return iter([Nothing() for _ in range(wanted_by_caller())])

    def __getitem__(self, key: Any) -> Nothing:
        return Nothing()

    def __setitem__(self, key: Any, value: Any) -> None:
        return None

    def __delitem__(self, key: Any) -> None:
        return None

    def __contains__(self, key: Any) -> bool:
        return False

    def __next__(self) -> Nothing:
        return Nothing()

    def __len__(self) -> int:
        return N_THINGS

    def __bool__(self) -> bool:
        return False

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def __index__(self) -> int:
        return 0

    def __float__(self) -> float:
        return 0.0

    def __format__(self, form: str) -> str:
        try:
            return format(0.0, form)
        except ValueError:
            return ""

    def __round__(self, n_digits: int | None = None) -> int:
        return 0

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        import numpy  # a notebook that comes here has it

        return numpy.zeros(())

    def _reckoned(self, *others: Any) -> Nothing:
        return Nothing()

    def _compared(self, other: Any) -> bool:
        return False

    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _reckoned
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = _reckoned
    __neg__ = __pos__ = __abs__ = __or__ = __and__ = __ror__ = __rand__ = _reckoned
    __lt__ = __le__ = __gt__ = __ge__ = _compared


def wanted_by_caller() -> int:
    """How many things the code unpacks that iterates over a `Nothing`: `fig, ax = …` wants two."""
    import dis  # takes a while to load, and few notebooks unpack a picture

    frame = sys._getframe(2)
    code, at = frame.f_code.co_code, frame.f_lasti
    if 0 <= at < len(code) - 1 and dis.opname[code[at]] in ("UNPACK_SEQUENCE", "UNPACK_EX"):
        return code[at + 1]
    return 0


def nothing(name: str) -> Any:
    """An attribute of a stand-in: a class that can be inherited from, or something to call."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (Nothing,), {}) if name[:1].isupper() else Nothing()


class Axes(Nothing):
    """What `plt.subplots(rows, columns)` gives: it has the shape that loops over it expect."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self.shape = tuple(shape)

    def __iter__(self) -> Iterator[Any]:
        return iter([Axes(self.shape[1:]) for _ in range(len(self))])

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: Any) -> Axes:
        depth = len(key) if isinstance(key, tuple) else 1
        if isinstance(key, int) and not -len(self) <= key < len(self):
            raise IndexError(key)  # a loop by index ends
        return Axes(self.shape[depth:])

    @property
    def flat(self) -> Axes:
        """All of them in a row."""
        n = 1
        for length in self.shape:
            n *= length
        return Axes((n,))

    def ravel(self, *args: Any, **kwargs: Any) -> Axes:
        """All of them in a row."""
        return self.flat

    flatten = ravel


def subplots(nrows: int = 1, ncols: int = 1, *args: Any, squeeze: bool = True, **kwargs: Any) -> Any:
    """A figure that draws nothing, and axes in the shape that matplotlib gives them."""
    shape = (int(nrows), int(ncols))
    return Nothing(), Axes([n for n in shape if n > 1] if squeeze else shape)


class Progress(Nothing):
    """`tqdm`: what it is wrapped around passes through, what it counts is not shown."""

    def __init__(self, iterable: Iterable[Any] | None = None, *args: Any, **kwargs: Any) -> None:
        self.iterable = iterable if iterable is not None else ()
        self.total, self.n = kwargs.get("total"), 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    def __len__(self) -> int:
        return len(self.iterable) if isinstance(self.iterable, Sized) else int(self.total or 0)

    def __bool__(self) -> bool:
        return True

    def update(self, n: float = 1) -> None:
        """Count on."""
        self.n += n  # type: ignore[assignment]

    @staticmethod
    def write(*args: Any, **kwargs: Any) -> None:
        """What is printed is not looked at."""


def trange(*bounds: int, **kwargs: Any) -> Progress:
    """`tqdm(range(...))`."""
    return Progress(range(*bounds))


class Absent:
    """A module that is not in the sandbox: it says so by name, in the line that uses it."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        name = object.__getattribute__(self, "_name")
        raise ModuleNotFoundError(f"No module named {name!r}: {HERE}", name=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__getattr__("call")  # which raises


class StandIns:
    """Finds stand-ins for modules that draw; asked first, so that none of them is really loaded.

    Of no class of `importlib.abc`, which loads forty modules before each submission.
    """

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A package for every name below one that draws."""
        if fullname.partition(".")[0] not in DRAWING:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """An empty module whose every attribute is a `Nothing`."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = nothing  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """The few names that must behave."""
        if module.__name__.partition(".")[0] == "tqdm":
            module.__dict__.update(tqdm=Progress, trange=trange)
        if module.__name__ in ("matplotlib.pyplot", "pylab"):
            module.__dict__.update(subplots=subplots)
