"""What a submission may try, and the status and the points that it must get. Harmless and bounded, all of it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.grading.hostile.world import DOUBLE, HONEST, LAST_ARRIVAL, NUMBER, POLICY


@dataclass(frozen=True)
class Attack:
    """cells: in place of an honest notebook. loot: a name of the notebook that must be empty in the end.

    ends: "" or what becomes of the cell or the question that attacks; the other answers count all the same.
    """

    name: str
    cells: tuple[str, ...]
    status: str
    points: float | None  # None: no score
    loot: bool = False
    why: str = ""  # among what is said
    ends: str = ""


def after(name: str, code: str, ends: str = "", **more: str | bool) -> Attack:
    """Honest answers, and then the attack."""
    return Attack(name, (*HONEST, code), "ok", 3, ends=ends, **more)  # type: ignore[arg-type]


def closed(name: str, code: str) -> Attack:
    """Honest answers, and then something that must fail: it raises, or leaves something false in `worked`."""
    tried = "\n".join(f"    {line}" for line in code.strip().split("\n"))
    cell = (
        f"worked = True\ntry:\n{tried}\nexcept BaseException: worked = False\n"
        "loot = ['it worked'] if worked else []"
    )
    return after(name, cell, loot=True)


def refused(name: str, call: str) -> Attack:
    """A system call by its number: `-1` or an exception is what it must come to."""
    code = f"import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nworked = ({call}) not in (-1, None)"
    return closed(name, code)


def inside(name: str, body: str, points: float = 2, ends: str = "", **more: str | bool) -> Attack:
    """The attack in the function that the grader calls."""
    lines = "\n".join(f"    {line}" for line in body.strip().split("\n"))
    cells = (NUMBER, f"def double(x):\n{lines}", POLICY)
    return Attack(name, cells, "ok", points, ends=ends, **more)  # type: ignore[arg-type]


def deciding(name: str, body: str, points: float = 2, ends: str = "", **more: str | bool) -> Attack:
    """The attack in the policy's decision; `plan(state)` is the honest one."""
    honest = POLICY.replace("class Policy", "class Honest") + "\nplan = Honest().schedule\nloot = []\n"
    lines = "\n".join(f"        {line}" for line in body.strip().split("\n"))
    code = f"{honest}\nclass Policy:\n    def schedule(self, state):\n{lines}\n"
    return Attack(name, (NUMBER, DOUBLE, code), "ok", points, ends=ends, **more)  # type: ignore[arg-type]


TIME = [
    after("endless loop", "while True: pass", "timeout", why="CPU time"),
    after(
        "endless loop, deaf to signals",
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): "
        "pass\nwhile True: pass",
        "timeout",
        why="CPU time",
    ),
    after(
        "endless loop that catches all",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "timeout",
    ),
    after("endless exponent", "x = 7 ** 7 ** 7 ** 7", "timeout"),
    after("endless pattern", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timeout"),
    after("sleep", "import time\ntime.sleep(10 ** 6)", "timeout", why="did nothing"),
    after("wait for input", "import os\nr, w = os.pipe()\nos.read(r, 1)", "timeout", why="did nothing"),
    after("stop itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout"),
    inside("sleep when called", "import time\ntime.sleep(10 ** 6)", ends="timeout", why="double"),
    deciding("naps", "import time\ntime.sleep(0.6)\nreturn plan(state)", ends="timeout"),
    deciding("endless decision", "while True: pass", ends="timeout", why="Policy"),
]
DEATH = [
    after("os._exit", "import os\nos._exit(0)", "crashed", why="ended itself"),
    inside("os._exit when called", "import os\nos._exit(7)", ends="crashed", why="ended itself"),
    after("kill -9 itself", "import os\nos.kill(os.getpid(), 9)", "crashed", why="SIGKILL"),
    closed("terminate its group", "import os\nos.killpg(0, 15)"),
    closed("kill all others", "import os\nos.kill(-1, 9)"),
    closed("kill the first process", "import os\nos.kill(1, 9)"),
    after("abort", "import os\nos.abort()", "crashed", why="SIGABRT"),
    after("null pointer", "import ctypes\nctypes.string_at(0)", "crashed", why="SIGSEGV"),
    after("another program", "import os\nos.execv('/bin/sh', ['sh'])"),
    closed(
        "the interpreter anew", "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'pass'])"
    ),
    after("exit", "raise SystemExit(3)"),
    after("interrupt", "raise KeyboardInterrupt"),
    inside("exit when called", "raise SystemExit(0)", 2),
    after("close everything", "import os\nos.closerange(0, 64)", "crashed"),
    after("endless recursion", "def f(): f()\nf()"),
]
MEMORY = [
    Attack("a huge block", (DOUBLE, POLICY, "number = len(bytearray(8 << 30))"), "memory", None),
    Attack(
        "block by block", (DOUBLE, POLICY, "x = []\nwhile True: x.append(bytearray(1 << 24))"), "memory", None
    ),
    inside("memory when called", "return bytearray(8 << 30)", ends="memory"),
    after("a huge block beside all answers", "x = bytearray(8 << 30)"),
    closed("shared memory", "import mmap\nm = mmap.mmap(-1, 8 << 30)"),
    closed("memory files", "import os\nos.memfd_create('x')"),
    closed(
        "memory of the system's own",
        "import ctypes\nworked = ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) != -1",
    ),
    closed("a thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(9,)).start()"),
]
FLOODS = [
    closed("fork bomb", "import os\nwhile True: os.fork()"),
    after(
        "fork bomb that insists",
        "import os\nfor _ in range(3000):\n    try: os.fork()\n    except OSError: pass",
    ),
    closed("subprocess", "import subprocess\nsubprocess.Popen(['/bin/sh', '-c', ':(){ :|:& };:'])"),
    closed("processes of Python", "import multiprocessing\nmultiprocessing.Process(target=print).start()"),
    closed(
        "fork past the library",
        "import ctypes\nc = ctypes.CDLL(None)\nworked = c.fork() != -1 or c.vfork() != -1",
    ),
    after("output flood", "for _ in range(20_000): print('x' * 10_000)"),
    after(
        "output flood past Python",
        "import os\nfor _ in range(2000): os.write(1, b'x' * 100_000), os.write(2, b'x' * 100_000)",
    ),
    closed("a file too large", "open('/tmp/a', 'wb').write(bytes(1 << 30))"),
    closed(
        "many files", "for i in range(500):\n    with open(f'/tmp/{i}', 'wb') as f: f.write(bytes(1 << 20))"
    ),
    closed("many open files", "x = [open('/dev/null') for _ in range(10 ** 5)]"),
    after(
        "empty files", "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'w').close(); i += 1", why="No space left"
    ),
    after(
        "empty directories", "import os\nwhile True:\n    os.mkdir('d'); os.chdir('d')", why="No space left"
    ),
    after("many directories", "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')"),
]
PIPE = """
import os
def speak(text):
    for fd in range(3, 64):
        try: os.write(fd, text)
        except OSError: pass
"""
FORGERIES = [
    after("flood of the pipe", PIPE + "while True: speak(b'x' * 65536)", "crashed"),
    after("no JSON", PIPE + "speak(b'\\xff\\xfe\\n')", "crashed"),
    after("another question's number", PIPE + 'speak(b\'{"id": "0", "ok": 42}\\n\')', "crashed"),
    after("nested without end", PIPE + "speak(b'[' * 200_000 + b'\\n')", "crashed"),
    after("NaN in JSON", PIPE + "speak(b'{\"id\": NaN}\\n')", "crashed"),
    after(
        "a million digits for a number", PIPE + "speak(b'{\"id\": ' + b'9' * 10 ** 6 + b'}\\n')", "crashed"
    ),
    Attack(
        "an answering machine of its own",
        (
            """
import sys
worker = sys.modules.get('chunkprefill_grading.sandbox.worker') or sys.modules['__main__']
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == 'Worker':
        type(thing).answer = lambda self, question: {'ok': True, 'points': 100, 'score': 100, 'status': 'ok'}
""",
        ),
        "ok",
        0,
    ),
    Attack(
        "an answer that is an error of no kind",
        (
            """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == 'Worker':
        type(thing).answer = lambda self, question: {'error': ['ok'], 'why': {}}
""",
        ),
        "crashed",
        None,
    ),
    Attack(
        "points in the answer",
        (*HONEST[1:], "number = {'points': 100, 'status': 'ok', 'score': 100}"),
        "ok",
        2,
    ),
]
WORKER = """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == 'Worker':
        old = type(thing).answer
        type(thing).answer = lambda self, question: LIE if question['ask'] == 'cell' else old(self, question)
"""
PATCHES = [
    *(
        Attack(
            f"a cell whose end is: {lie}",
            (*HONEST, WORKER.replace("LIE", lie), "x = 1", "y = 1"),
            "ok",
            3,
            why="could not be run",
        )
        for lie in (
            "{'error': 'raised', 'kind': 'KeyError', 'cell': 1, 'line': 1}",
            "{'error': 'raised', 'kind': {}, 'cell': 'x' * 99, 'line': -1}",
            "{'error': 'no answer'}",
            "{'error': 'bad answer', 'form': 'items'}",
        )
    ),
    Attack("the source of each cell", ("import linecache\nlinecache.cache = None", *HONEST), "ok", 3),
    Attack(
        "a cell that says that memory ran out",
        (*HONEST, WORKER.replace("LIE", "{'error': 'memory'}"), "x = 1"),
        "ok",
        3,
        ends="memory",
    ),
    after(
        "builtins",
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda *a: int\n"
        "builtins.len = lambda x: 0",
        "crashed",
    ),
    Attack(
        "the comparison",
        ("import numpy, builtins\nnumpy.array_equal = lambda *a: True\nnumber = 41",),
        "ok",
        0,
    ),
    Attack(
        "the checks of the wire",
        (
            """
from chunkprefill_grading.sandbox import wire, worker
assert wire.encode_value and worker.simple  # else this attacks nothing
wire.encode_value = lambda value: value
worker.simple = lambda value: value
number = float('nan')
""",
        ),
        "ok",
        0,
    ),
    Attack(
        "the contract",
        (
            NUMBER,
            DOUBLE,
            POLICY.replace("seq.pending)", "10 ** 6)").replace("min(64,", "max(64,"),
            "from chunkprefill.scheduling.state import State\nState.apply = lambda self, plan: None",
        ),
        "ok",
        2,
    ),
]
EQUAL = """
class Equal({base}):
    def __eq__(self, other): return True
    __hash__ = None
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
    def __index__(self): return 42
    def __float__(self): return 42.0
    def __len__(self): return 4
    def __iter__(self): return iter([self] * 4)
    __array__ = __add__ = __sub__ = __radd__ = __rsub__ = lambda self, *a, **k: self
"""
OBJECTS = [
    *(
        Attack(
            f"equal to everything, {base or 'plain'}",
            (
                EQUAL.format(base=base),
                f"number = Equal({'42' if base == 'str' else ''})\n"
                "def double(x): return Equal()\nclass Policy:\n    def schedule(self, state): return Equal()",
            ),
            "ok",
            0,
        )
        for base in ("", "int", "float", "str", "list", "dict", "tuple")
    ),
    Attack(
        "an int with its own equality",
        (EQUAL.format(base="int"), "number = Equal(7)", DOUBLE, POLICY),
        "ok",
        2,
    ),
    Attack("true for 42", ("number = True", DOUBLE, POLICY), "ok", 2),
    Attack("not a number", (DOUBLE, POLICY, "number = float('nan')"), "ok", 2),
    Attack("endless", (DOUBLE, POLICY, "number = float('inf')"), "ok", 2),
    Attack("a number of a million digits", (DOUBLE, POLICY, "number = 1 << (1 << 20)"), "ok", 2),
    Attack(
        "a deep answer", (DOUBLE, POLICY, "number = []\nfor _ in range(10 ** 5): number = [number]"), "ok", 2
    ),
    Attack("an answer in itself", (DOUBLE, POLICY, "number = []\nnumber.append(number)"), "ok", 2),
    Attack("a long answer", (DOUBLE, POLICY, "number = [1] * 10 ** 6"), "ok", 2),
    Attack("a long text", (DOUBLE, POLICY, "number = 'x' * 10 ** 8"), "ok", 2),
    inside("NaN in an array", "return [float('nan')] * 4", 2),
    inside("a wrong shape", "return [[0.0] * 4]", 2),
    inside("rows of different lengths", "return [[0.0], [1.0, 2.0]]", 2),
    inside("a huge array", "return [0.0] * 10 ** 6", 2),
    inside("text for numbers", "return ['1', '2', '3', '4']", 2),
    inside("the question handed back", "return x", 2),
    inside(
        "an exception that is no text", "class E(Exception):\n    def __str__(self): return 5\nraise E", 2
    ),
    inside(
        "an exception that speaks for ever",
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        ends="timeout",
    ),
    Attack(
        "an attribute that runs for ever",
        (
            DOUBLE,
            POLICY,
            "class E:\n    @property\n    def __class__(self):\n        while True: pass\nnumber = E()",
        ),
        "ok",
        2,
    ),
    deciding("no plan", "return {0: 1}", 2),
    deciding("none", "return None", 2),
    deciding("a plan for strangers", "return cp.Plan({'ghost': 5})", 2),
    deciding("a plan of NaN", "return cp.Plan({rid: float('nan') for rid in [0]})", 2),
    deciding(
        "evicting for ever",
        "p = plan(state)\nreturn cp.Plan(p.tokens, tuple(s.rid for s in state.running "
        "if s.rid not in p.tokens))",
        3,
    ),
]
PEEK = f"""
import gc, sys
def search():
    frame = sys._getframe()
    while frame is not None:
        yield from frame.f_locals.values()
        frame = frame.f_back
    for thing in gc.get_objects():
        yield thing
        if type(thing) is dict: yield from list(thing.values())
for thing in search():
    if type(thing) is float and thing == {LAST_ARRIVAL} and state.now < thing:
        loot.append(thing)
    if type(thing).__name__ in ('Request', 'Trace', 'CostModelExecutor', 'RemotePolicy', 'Session'):
        loot.append(str(type(thing)))
"""
LOOKING = [
    deciding("the future", PEEK + "return plan(state)", 3, loot=True),
    deciding(
        "other lengths",
        "for seq in [*state.running, *state.waiting]:\n    for name in ('n_output', 'output', 'last'):\n"
        "        if getattr(type(seq), name, None): loot.append(name)\n"
        "loot.extend(n for n in getattr(state, '_last', {}).values() if n != float('inf'))\nreturn plan(state)",
        3,
        loot=True,
    ),
    closed("the network", "import socket\nsocket.create_connection(('1.1.1.1', 80), 1)"),
    closed("the network past the library", "import ctypes\nworked = ctypes.CDLL(None).socket(2, 1, 0) != -1"),
    closed("sockets without a network", "import socket\nsocket.socketpair()"),
    closed("a name server", "import socket\nsocket.getaddrinfo('example.org', 80)"),
    closed("another's memory", "import ctypes\nworked = ctypes.CDLL(None).ptrace(16, 1, 0, 0) != -1"),
    closed(
        "another root",
        "import ctypes\nc = ctypes.CDLL(None)\nworked = c.unshare(0x10000000) != -1 or "
        "c.mount(b'none', b'/tmp', b'tmpfs', 0, None) != -1 or c.chroot(b'/tmp') != -1",
    ),
    after(
        "other processes",
        "import os\nloot = [p for p in os.listdir('/proc')] if os.path.isdir('/proc') else []",
        loot=True,
    ),
    after(
        "the course's own solutions",
        """
import importlib, sys
loot = []
for name in ('chunkprefill_course', 'chunkprefill_course.exercises', 'chunkprefill_course.clinic',
             'chunkprefill_grading.problems', 'chunkprefill_grading.marking.mark', 'chunkprefill_grading.cli',
             'chunkprefill_grading.sandbox.session', 'chunkprefill_grading.sandbox.process', 'tests'):
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    loot.append(name)
""",
        loot=True,
    ),
    after(
        "limits raised",
        """
import resource
loot = []
for name in ('AS', 'CPU', 'FSIZE', 'NOFILE'):
    soft, hard = resource.getrlimit(getattr(resource, 'RLIMIT_' + name))
    if hard == resource.RLIM_INFINITY: loot.append(name)
    try:
        resource.setrlimit(getattr(resource, 'RLIMIT_' + name), (hard + 1, hard + 1))
    except (ValueError, OSError):
        continue
    loot.append('more ' + name)
""",
        loot=True,
    ),
]
WRITING = [
    after(
        "writing everywhere",
        """
import os
loot = []
for folder, folders, files in os.walk('/'):
    if folder.startswith('/tmp'): continue
    try:
        with open(os.path.join(folder, 'x'), 'w') as f: f.write('x')
    except OSError:
        continue
    loot.append(folder)
    if len(loot) > 5: break
""",
        loot=True,
    ),
    after(
        "undoing the walls",
        """
import os
loot = []
for what in (lambda: os.remove('/site/chunkprefill/__init__.py'), lambda: os.chmod('/site', 0o777),
             lambda: os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0)), lambda: os.setuid(0),
             lambda: os.symlink('/etc', '/x'), lambda: os.chroot('/')):
    try: what()
    except OSError: continue
    loot.append('one of them worked')
""",
        loot=True,
    ),
]
LIBC = "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
SHARED = "import glob, os\npath = sorted(glob.glob('/site/chunkprefill/**/*.py', recursive=True))[0]\n"
#: what others use too: files that all submissions map, nodes of the machine, its kernel
OTHERS = [
    *(
        closed(
            f"a lease of kind {kind}",
            SHARED + f"import fcntl\nfcntl.fcntl(os.open(path, os.O_RDONLY), 1024, {kind})",
        )
        for kind in (0, 1, 2)
    ),
    *(
        closed(
            f"fcntl {command}",
            SHARED + "import fcntl, struct\n"
            f"fcntl.fcntl(os.open(path, os.O_RDONLY), {command}, struct.pack('hhqqi', 0, 0, 0, 1, 0))",
        )
        for command in (5, 6, 7, 36, 37, 38)  # GETLK, SETLK, SETLKW, and the same of open files
    ),
    *(
        closed(
            f"fcntl {command} on a pipe", f"import fcntl, os\nfcntl.fcntl(os.pipe()[0], {command}, 1 << 20)"
        )
        for command in (8, 10, 15, 1026, 1031, 1032, 1033, 1036)  # owner, signal, notify, sizes, seals, hints
    ),
    closed("flock", SHARED + "import fcntl\nfcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)"),
    closed("lockf in its own folder", "import fcntl\nfcntl.lockf(open('/tmp/x', 'w'), fcntl.LOCK_EX)"),
    *(
        closed(f"{what}, {node}", f"import os\nos.{what.format(node=repr(node))}")
        for node in ("/dev/null", "/dev/urandom", "/tmp", "/site")
        for what in (
            "chmod({node}, 0)",
            "chown({node}, 65534, 65534)",
            "utime({node})",
            "utime({node}, (0, 0))",
            "setxattr({node}, 'user.x', b'x')",
            "removexattr({node}, 'user.x')",
        )
    ),
    closed("fchmod of an open node", "import os\nos.fchmod(os.open('/dev/null', os.O_RDWR), 0)"),
    closed(
        "attributes of its own files",
        "import os\nopen('/tmp/x', 'w').close()\nos.setxattr('/tmp/x', 'user.x', b'x' * 60000)",
    ),
    closed("a hard link", "import os\nopen('/tmp/x', 'w').close()\nos.link('/tmp/x', '/tmp/y')"),
    closed("a pipe in the file system", "import os\nos.mkfifo('/tmp/x')"),
    closed("another processor", "import os\nos.sched_setaffinity(0, {0})"),
    closed("another priority", "import os\nos.setpriority(os.PRIO_PROCESS, 0, 5)"),
    closed("another scheduler", "import os\nos.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"),
    closed("an alarm", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01, 0.00001)"),
    closed("a group of its own", "import os\nos.setsid()"),
    closed("a shared anonymous mapping", "import mmap\nmmap.mmap(-1, 4096)"),
    closed("disks that write", "import os\nos.sync()\nworked = False"),
    *(
        refused(name, call)
        for name, call in {
            "memfd_secret": "c.syscall(447, 0)",
            "landlock": "c.syscall(444, 0, 0, 1)",
            "userfaultfd": "c.syscall(323, 1)",
            "io_uring": "c.syscall(425, 8, ctypes.create_string_buffer(256))",
            "bpf": "c.syscall(321, 0, ctypes.create_string_buffer(128), 128)",
            "perf": "c.syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0)",
            "keyctl": "c.syscall(250, 0, -3, 1)",
            "add_key": "c.syscall(248, b'user', b'x', b'x', 1, -3)",
            "inotify": "c.inotify_init()",
            "fanotify": "c.syscall(300, 0, 0)",
            "eventfd": "c.eventfd(0, 0)",
            "signalfd": "c.signalfd(-1, ctypes.create_string_buffer(128), 0)",
            "timerfd": "c.timerfd_create(1, 0)",
            "timer_create": "c.syscall(222, 1, None, ctypes.create_string_buffer(8))",
            "epoll": "c.epoll_create1(0)",
            "mlock": "c.mlock(ctypes.create_string_buffer(4096), 4096)",
            "mlockall": "c.mlockall(1)",
            "madvise, merge": "c.madvise(ctypes.c_void_p(id(c) & ~4095), 4096, 12)",
            "madvise, page out": "c.madvise(ctypes.c_void_p(id(c) & ~4095), 4096, 21)",
            "madvise, populate": "c.madvise(ctypes.c_void_p(id(c) & ~4095), 4096, 23)",
            "mincore": "c.mincore(ctypes.c_void_p(id(c) & ~4095), 4096, ctypes.create_string_buffer(8))",
            "fadvise": "-1 if c.posix_fadvise(3, 0, 0, 4) else 0",
            "membarrier": "c.syscall(324, 1, 0, 0)",
            "process_vm_readv": "c.syscall(310, 1, 0, 0, 0, 0, 0)",
            "pidfd_open": "c.syscall(434, 1, 0)",
            "personality": "c.personality(0xffffffff)",
            "prctl, dumpable": "c.prctl(4, 1, 0, 0, 0)",
            "prctl, keep rights": "c.prctl(8, 1, 0, 0, 0)",
            "prctl, speculation": "c.prctl(53, 0, 4, 0, 0)",
            "prctl, a name of a mapping": "c.prctl(0x53564d41, 0, id(c) & ~4095, 4096, b'x' * 70)",
            "a filter of its own": "c.syscall(317, 2, 0, ctypes.create_string_buffer(4))",
            "splice": "c.splice(3, None, 4, None, 1, 0)",
            "open by handle": "c.syscall(304, 3, None, 0)",
            "set_mempolicy": "c.syscall(238, 0, None, 0)",
            "ioctl, flags of a file": "c.ioctl(3, 0x40086602, ctypes.create_string_buffer(8))",
            "ioctl, type into a terminal": "c.ioctl(3, 0x5412, b'x')",
            "limits of the first process": "c.prlimit(1, 7, None, ctypes.create_string_buffer(16))",
        }.items()
    ),
]
#: bounds, whatever holds what is bounded
BOUNDS = [
    deciding("short naps", "import time\ntime.sleep(0.2)\nreturn plan(state)", ends="timeout"),
    inside("memory that libraries have freed", "import numpy\nreturn numpy.ones(1 << 28)", ends="memory"),
    after(
        "pipes, as many as there may be",
        "import os\ndef f():\n    for fd in range(8, 64): os.close(fd)\n"
        "try:\n    while True: os.pipe()\nexcept OSError: f()",
    ),
    after(
        "a folder full of bytes",
        "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'wb').write(bytes(1 << 19)); i += 1",
        why="No space left",
    ),
    after(
        "signals that wait",
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "for _ in range(10_000): os.kill(os.getpid(), 40)\n"
        "n = 0\nwhile signal.sigtimedwait({40}, 0): n += 1\nloot = [n] if n > 64 else []",
        loot=True,
    ),
    after("a notebook that keeps what it reads", "x = [bytes(1 << 20) for _ in range(10 ** 6)]"),
]
SHAPES = [
    Attack("honest", HONEST, "ok", 3),
    Attack("honest, cells twice", (*HONEST, *HONEST), "ok", 3),
    Attack("honest, backwards", HONEST[::-1], "ok", 3),
    Attack("half", (NUMBER, "def double(x):\n    raise NotImplementedError"), "ok", 1),
    Attack("blank", ("number = None", "def double(x):\n    raise NotImplementedError"), "no answer", None),
    Attack("nothing", (), "no answer", None),
    Attack("text that is no Python", ("this is not", "%%bash\nrm -rf /", "!rm -rf /\nnumber = 42"), "ok", 1),
    Attack("wrong", ("number = 41", DOUBLE.replace("2 *", "3 *"), POLICY), "ok", 1),
    Attack("zero bytes", ("\0", *HONEST), "ok", 3),
    Attack("surrogates", ("x = '\ud800'", *HONEST), "ok", 3),
]
#: values that lie about themselves, and the program's own modules turned against it
LIES = [
    *(
        Attack(name, (DOUBLE, POLICY, code), "ok", 2)
        for name, code in {
            "a list of itself": "class T:\n    size = 1\n    shape = ()\n    def tolist(self): return self\n"
            "T.__module__ = 'numpy'\nnumber = T()",
            "a small size and a long list": "class T:\n    size = -1\n    shape = (1,)\n"
            "    def tolist(self): return [0] * 10 ** 7\nT.__module__ = 'numpy'\nnumber = T()",
            "an instance of everything": "class M(type):\n    def __instancecheck__(c, o): return True\n"
            "    def __subclasscheck__(c, o): return True\nclass X(metaclass=M): pass\nnumber = X()",
            "keys without end": "class D(dict):\n    def keys(self):\n        while True: yield object()\n"
            "    def __getitem__(self, key): return self\nnumber = D()",
            "generators in generators": "def g():\n    yield g()\nnumber = g()",
            "a module that has every name": "def __getattr__(name): return 42",
            "half a character": "number = '\\udc80'",
        }.items()
    ),
    after(
        "JSON that is always the same",
        'import json\njson.dumps = lambda *a, **k: \'{"id": 0, "ok": 42}\'',
        "crashed",
    ),
    inside(
        "an array in too many letters",
        "import base64\nbase64.b64encode = lambda data: b'A' * (1 << 26)\nreturn [0.0] * 4",
        ends="crashed",
        why="more than an answer needs",
    ),
    deciding(
        "a hook that forbids all",
        "import sys\ndef hook(*event): raise RuntimeError\nsys.addaudithook(hook)\nopen('/tmp/x')",
    ),
]
#: what an error may say of a hidden input: nothing that is said then is repeated
SAYING = [
    inside(f"{name} that tells of its input", body, 2)
    for name, body in {
        "a note": "e = ValueError('a'); e.add_note(f'SAID {x}'); raise e",
        "a group": "raise ExceptionGroup('SAID', [ValueError(f'SAID {x}')])",
        "a name": "raise type(f'SAID{x}', (Exception,), {})",
        "a module's name": "raise ImportError(f'SAID {x}', name=f'SAID {x}')",
        "a line of a cell": "import linecache\n"
        "linecache.cache['<cell 2>'] = (1, None, [f'SAID {x}\\n'] * 9, '<cell 2>')\nraise ValueError",
        "a cell's number": "exec(compile('raise ValueError', f'<cell {int(abs(x[0]) * 1e4)}>', 'exec'))",
    }.items()
]
ATTACKS = [
    *LIES,
    *SAYING,
    *TIME,
    *DEATH,
    *MEMORY,
    *FLOODS,
    *FORGERIES,
    *PATCHES,
    *OBJECTS,
    *LOOKING,
    *WRITING,
    *OTHERS,
    *BOUNDS,
    *SHAPES,
]
