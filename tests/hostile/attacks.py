"""What a submission may try, and the status and the points that it must get. Harmless and bounded, all of it."""

# ruff: noqa: E501  (programs in strings)

from __future__ import annotations

from dataclasses import dataclass

from tests.hostile.world import DOUBLE, HONEST, LAST_ARRIVAL, NUMBER, POLICY


@dataclass(frozen=True)
class Attack:
    """cells: in place of an honest notebook. loot: a name of the notebook that must be empty in the end."""

    name: str
    cells: tuple[str, ...]
    status: str
    points: float | None  # None: no score
    loot: bool = False
    why: str = ""  # in the reason


def after(name: str, code: str, status: str = "ok", points: float | None = 3, **more: str | bool) -> Attack:
    """Honest answers, and then the attack."""
    return Attack(name, (*HONEST, code), status, points, **more)  # type: ignore[arg-type]


def closed(name: str, code: str) -> Attack:
    """Honest answers, and then something that must fail: it raises, or leaves something false in `worked`."""
    tried = "\n".join(f"    {line}" for line in code.strip().split("\n"))
    cell = f"worked = True\ntry:\n{tried}\nexcept BaseException: worked = False\nloot = ['it worked'] if worked else []"
    return after(name, cell, loot=True)


def inside(name: str, body: str, status: str, points: float | None, **more: str | bool) -> Attack:
    """The attack in the function that the grader calls."""
    lines = "\n".join(f"    {line}" for line in body.strip().split("\n"))
    cells = (NUMBER, f"def double(x):\n{lines}", POLICY)
    return Attack(name, cells, status, points, **more)  # type: ignore[arg-type]


def deciding(name: str, body: str, status: str, points: float | None, **more: str | bool) -> Attack:
    """The attack in the policy's decision; `plan(state)` is the honest one."""
    honest = POLICY.replace("class Policy", "class Honest") + "\nplan = Honest().schedule\nloot = []\n"
    lines = "\n".join(f"        {line}" for line in body.strip().split("\n"))
    code = f"{honest}\nclass Policy:\n    def schedule(self, state):\n{lines}\n"
    return Attack(name, (NUMBER, DOUBLE, code), status, points, **more)  # type: ignore[arg-type]


TIME = [
    after("endless loop", "while True: pass", "timeout", None, why="CPU time"),
    after(
        "endless loop, deaf to signals",
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): "
        "pass\nwhile True: pass",
        "timeout", None, why="CPU time",
    ),
    after("endless loop that catches all", "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
          "timeout", None),
    after("endless exponent", "x = 7 ** 7 ** 7 ** 7", "timeout", None),
    after("endless pattern", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timeout", None),
    after("sleep", "import time\ntime.sleep(10 ** 6)", "timeout", None, why="did nothing"),
    after("wait for input", "import os\nr, w = os.pipe()\nos.read(r, 1)", "timeout", None, why="did nothing"),
    after("stop itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout", None),
    inside("sleep when called", "import time\ntime.sleep(10 ** 6)", "timeout", None, why="double"),
    deciding("naps", "import time\ntime.sleep(0.6)\nreturn plan(state)", "timeout", None),
    deciding("endless decision", "while True: pass", "timeout", None, why="Policy"),
]  # fmt: skip
DEATH = [
    after("os._exit", "import os\nos._exit(0)", "crashed", None, why="status 0"),
    inside("os._exit when called", "import os\nos._exit(7)", "crashed", None, why="status 7"),
    after("kill -9 itself", "import os\nos.kill(os.getpid(), 9)", "crashed", None, why="SIGKILL"),
    after("terminate its group", "import os\nos.killpg(0, 15)", "crashed", None),
    after("kill everybody", "import os\nos.kill(-1, 9)"),
    after("abort", "import os\nos.abort()", "crashed", None, why="SIGABRT"),
    after("null pointer", "import ctypes\nctypes.string_at(0)", "crashed", None, why="SIGSEGV"),
    after("another program", "import os\nos.execv('/bin/sh', ['sh'])"),
    after("the interpreter anew", "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'pass'])",
          "crashed", None),
    after("exit", "raise SystemExit(3)"),
    after("interrupt", "raise KeyboardInterrupt"),
    inside("exit when called", "raise SystemExit(0)", "ok", 2),
    after("close everything", "import os\nos.closerange(0, 64)", "crashed", None),
    after("endless recursion", "def f(): f()\nf()"),
]  # fmt: skip
MEMORY = [
    Attack("a huge block", (DOUBLE, POLICY, "number = len(bytearray(8 << 30))"), "memory", None),
    Attack("block by block", (DOUBLE, POLICY, "x = []\nwhile True: x.append(bytearray(1 << 24))"), "memory", None),
    inside("memory when called", "return bytearray(8 << 30)", "memory", None),
    after("a huge block beside all answers", "x = bytearray(8 << 30)"),
    closed("shared memory", "import mmap\nm = mmap.mmap(-1, 8 << 30)"),
    closed("memory files", "import os\nos.memfd_create('x')"),
    closed("memory of the system's own", "import ctypes\nworked = ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) != -1"),
    closed("a thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(9,)).start()"),
]  # fmt: skip
FLOODS = [
    closed("fork bomb", "import os\nwhile True: os.fork()"),
    after("fork bomb that insists",
          "import os\nfor _ in range(3000):\n    try: os.fork()\n    except OSError: pass"),
    closed("subprocess", "import subprocess\nsubprocess.Popen(['/bin/sh', '-c', ':(){ :|:& };:'])"),
    closed("processes of Python", "import multiprocessing\nmultiprocessing.Process(target=print).start()"),
    closed("fork past the library", "import ctypes\nc = ctypes.CDLL(None)\n"
           "worked = c.fork() != -1 or c.vfork() != -1"),
    after("output flood", "for _ in range(20_000): print('x' * 10_000)"),
    after("output flood past Python", "import os\nfor _ in range(2000): os.write(1, b'x' * 100_000), "
          "os.write(2, b'x' * 100_000)"),
    closed("a file too large", "open('/tmp/a', 'wb').write(bytes(1 << 30))"),
    closed("many files", "for i in range(500):\n    with open(f'/tmp/{i}', 'wb') as f: f.write(bytes(1 << 20))"),
    closed("many open files", "x = [open('/dev/null') for _ in range(10 ** 5)]"),
    after("empty files", "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'w').close(); i += 1", "memory", None, why="files"),
    after("empty directories", "import os\nwhile True:\n    os.mkdir('d'); os.chdir('d')", "memory", None, why="files"),
    after("many directories", "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')"),
]  # fmt: skip
PIPE = """
import os
def speak(text):
    for fd in range(3, 64):
        try: os.write(fd, text)
        except OSError: pass
"""
FORGERIES = [
    after("flood of the pipe", PIPE + "while True: speak(b'x' * 65536)", "crashed", None),
    after("no JSON", PIPE + "speak(b'\\xff\\xfe\\n')", "crashed", None),
    after("another question's number", PIPE + "speak(b'{\"id\": \"0\", \"ok\": 42}\\n')", "crashed", None),
    after("nested without end", PIPE + "speak(b'[' * 200_000 + b'\\n')", "crashed", None),
    after("NaN in JSON", PIPE + "speak(b'{\"id\": NaN}\\n')", "crashed", None),
    after("a million digits for a number", PIPE + "speak(b'{\"id\": ' + b'9' * 10 ** 6 + b'}\\n')", "crashed", None),
    Attack("an answering machine of its own", ("""
import sys
worker = sys.modules.get('chunkprefill.grading.worker') or sys.modules['__main__']
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == 'Worker':
        type(thing).answer = lambda self, question: {'ok': True, 'points': 100, 'score': 100, 'status': 'ok'}
""",), "ok", 0),
    Attack("an answer that is an error of no kind", ("""
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == 'Worker':
        type(thing).answer = lambda self, question: {'error': ['ok'], 'why': {}}
""",), "crashed", None),
    Attack("points in the answer", (*HONEST[1:], "number = {'points': 100, 'status': 'ok', 'score': 100}"), "ok", 2),
]  # fmt: skip
PATCHES = [
    after("builtins", "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda *a: int\n"
          "builtins.len = lambda x: 0", "crashed", None),
    Attack("the comparison", ("import numpy, builtins\nnumpy.array_equal = lambda *a: True\nnumber = 41",), "ok", 0),
    Attack("the checks of the wire", ("""
from chunkprefill.grading import wire, worker
wire.encode = lambda value: value
worker.simple = lambda value: value
number = float('nan')
""",), "crashed", None),
    Attack("the contract", (NUMBER, DOUBLE, POLICY.replace("seq.pending)", "10 ** 6)").replace("min(64,", "max(64,"),
           "from chunkprefill.scheduling.state import State\nState.apply = lambda self, plan: None"), "ok", 2),
]  # fmt: skip
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
        Attack(f"equal to everything, {base or 'plain'}", (
            EQUAL.format(base=base), f"number = Equal({'42' if base == 'str' else ''})\n"
            "def double(x): return Equal()\nclass Policy:\n    def schedule(self, state): return Equal()"), "ok", 0)
        for base in ("", "int", "float", "str", "list", "dict", "tuple")
    ),
    Attack("an int with its own equality", (EQUAL.format(base="int"), "number = Equal(7)", DOUBLE, POLICY), "ok", 2),
    Attack("true for 42", ("number = True", DOUBLE, POLICY), "ok", 2),
    Attack("not a number", (DOUBLE, POLICY, "number = float('nan')"), "ok", 2),
    Attack("endless", (DOUBLE, POLICY, "number = float('inf')"), "ok", 2),
    Attack("a number of a million digits", (DOUBLE, POLICY, "number = 1 << (1 << 20)"), "ok", 2),
    Attack("a deep answer", (DOUBLE, POLICY, "number = []\nfor _ in range(10 ** 5): number = [number]"), "ok", 2),
    Attack("an answer in itself", (DOUBLE, POLICY, "number = []\nnumber.append(number)"), "ok", 2),
    Attack("a long answer", (DOUBLE, POLICY, "number = [1] * 10 ** 6"), "ok", 2),
    Attack("a long text", (DOUBLE, POLICY, "number = 'x' * 10 ** 8"), "ok", 2),
    inside("NaN in an array", "return [float('nan')] * 4", "ok", 2),
    inside("a wrong shape", "return [[0.0] * 4]", "ok", 2),
    inside("rows of different lengths", "return [[0.0], [1.0, 2.0]]", "ok", 2),
    inside("a huge array", "return [0.0] * 10 ** 6", "ok", 2),
    inside("text for numbers", "return ['1', '2', '3', '4']", "ok", 2),
    inside("the question handed back", "return x", "ok", 2),
    inside("an exception that is no text", "class E(Exception):\n    def __str__(self): return 5\nraise E", "ok", 2),
    inside("an exception that speaks for ever", "class E(Exception):\n    def __str__(self):\n        while True: pass\n"
           "raise E", "timeout", None),
    Attack("an attribute that runs for ever", (DOUBLE, POLICY, "class E:\n    @property\n    def __class__(self):\n"
           "        while True: pass\nnumber = E()"), "ok", 2),
    deciding("no plan", "return {0: 1}", "ok", 2),
    deciding("none", "return None", "ok", 2),
    deciding("a plan for strangers", "return cp.Plan({'nobody': 5})", "ok", 2),
    deciding("a plan of NaN", "return cp.Plan({rid: float('nan') for rid in [0]})", "ok", 2),
    deciding("evicting for ever", "p = plan(state)\nreturn cp.Plan(p.tokens, tuple(s.rid for s in state.running "
             "if s.rid not in p.tokens))", "ok", 3),
]  # fmt: skip
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
    if type(thing).__name__ in ('Request', 'Trace', 'Priced', 'RemotePolicy', 'Session'):
        loot.append(str(type(thing)))
"""
LOOKING = [
    deciding("the future", PEEK + "return plan(state)", "ok", 3, loot=True),
    deciding("other lengths", "for seq in [*state.running, *state.waiting]:\n    for name in ('n_output', 'output', 'last'):\n"
             "        if getattr(type(seq), name, None): loot.append(name)\n"
             "loot.extend(n for n in state._last.values() if n != float('inf'))\nreturn plan(state)", "ok", 3, loot=True),
    closed("the network", "import socket\nsocket.create_connection(('1.1.1.1', 80), 1)"),
    closed("the network past the library", "import ctypes\nworked = ctypes.CDLL(None).socket(2, 1, 0) != -1"),
    closed("sockets without a network", "import socket\nsocket.socketpair()"),
    closed("a name server", "import socket\nsocket.getaddrinfo('example.org', 80)"),
    closed("another's memory", "import ctypes\nworked = ctypes.CDLL(None).ptrace(16, 1, 0, 0) != -1"),
    closed("another root", "import ctypes\nc = ctypes.CDLL(None)\nworked = c.unshare(0x10000000) != -1 or "
           "c.mount(b'none', b'/tmp', b'tmpfs', 0, None) != -1 or c.chroot(b'/tmp') != -1"),
    after("other processes", "import os\nloot = [p for p in os.listdir('/proc')] if os.path.isdir('/proc') else []",
          loot=True),
    after("the course's own solutions", """
import importlib, sys
loot = []
for name in ('exercises', 'evidence', 'scheduling.policies', 'scheduling.vllm', 'model.attention', 'model.cache',
             'grading.marking', 'grading.problems', 'grading.session', 'grading.run', 'simulation.simulate'):
    try:
        importlib.import_module('chunkprefill.' + name)
    except ImportError:
        continue
    loot.append(name)
""", loot=True),
    after("limits raised", """
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
""", loot=True),
]  # fmt: skip
WRITING = [
    after("writing everywhere", """
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
""", loot=True),
    after("undoing the walls", """
import os
loot = []
for what in (lambda: os.remove('/site/chunkprefill/__init__.py'), lambda: os.chmod('/site', 0o777),
             lambda: os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0)), lambda: os.setuid(0),
             lambda: os.symlink('/etc', '/x'), lambda: os.chroot('/')):
    try: what()
    except OSError: continue
    loot.append('one of them worked')
""", loot=True),
]  # fmt: skip
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
ATTACKS = [*TIME, *DEATH, *MEMORY, *FLOODS, *FORGERIES, *PATCHES, *OBJECTS, *LOOKING, *WRITING, *SHAPES]
