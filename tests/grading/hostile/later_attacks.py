"""More of what a submission may try: against the program that asks it, with what it leaves behind, by what it is."""

from __future__ import annotations

from tests.grading.hostile.attacks import PIPE, Attack, after, closed, deciding, inside, refused
from tests.grading.hostile.world import DOUBLE, HONEST, NUMBER, POLICY

#: finds the dictionary that is the question being asked, in the frames of the program inside
QUESTION = """
import sys
def question():
    frame = sys._getframe()
    while frame is not None:
        if isinstance(frame.f_locals.get('question'), dict): return frame.f_locals['question']
        frame = frame.f_back
def ends():
    found, frame = [], sys._getframe()
    while frame is not None:
        found += [frame.f_locals[name] for name in ('source', 'sink') if hasattr(frame.f_locals.get(name), 'fileno')]
        frame = frame.f_back
    assert len(found) > 1
    return found
"""
#: looking for what others know
PEEKING = [
    after(
        "files that are open already",
        "import os\nloot = []\nfor fd in range(6, 1024):\n"  # nothing, nothing, nothing, two pipes, nothing
        "    try: os.fstat(fd)\n    except OSError: continue\n    loot.append(fd)",
        loot=True,
    ),
    after(
        "the environment and the command",
        "import os, sys\nshown = repr([dict(os.environ), sys.argv, sys.orig_argv, sys.path, sys.flags])\n"
        "loot = [word for word in ('key.json', 'submitted', '.stage', 'secret', 'c0ffee', 'results') if word in shown]",
        loot=True,
    ),
    after(
        "the secret in all of memory that is an object",
        "import gc\nloot = []\nfor thing in gc.get_objects():\n"
        "    for each in (thing, *(thing.values() if type(thing) is dict else ())):\n"
        "        if type(each) is str and each.startswith('c0ffee5e'): loot.append('a secret')",
        loot=True,
    ),
    after(
        "the next question, before it is asked",
        QUESTION + "import os\nloot = []\nfor end in ends():\n    fd = end.fileno()\n"
        "    os.set_blocking(fd, False)\n    try: loot.append(len(os.read(fd, 1 << 16)))\n"
        "    except OSError: pass\n    os.set_blocking(fd, True)",
        loot=True,
    ),
    *(
        closed(f"a look at {path}", f"open({path!r}, 'rb').read(1)")
        for path in (
            "/proc/self/environ",
            "/proc/1/cmdline",
            "/proc/self/mem",
            "/proc/self/mountinfo",
            "/dev/fd/0",
            "/dev/mem",
            "/dev/tty",
            "/dev/shm",
            "/sys/kernel/notes",
            "/etc/shadow",
            "/root",
        )
    ),
    after(  # the grader reads the lines in which the kernel tells of the process, and this name among them
        "a name of the process that is no text",
        "import ctypes\nctypes.CDLL(None).prctl(15, b'\\xff) R 1 \\x80', 0, 0, 0)",
    ),
    closed(
        "a link to a file outside", "import os\nos.symlink('/etc/passwd', '/tmp/l')\nopen('/tmp/l').read()"
    ),
    closed("a link out of /tmp by dots", "open('/tmp/../../../../etc/hostname').read()"),
]
#: forged answers, out of turn, from a program turned against itself
FORGED = [
    inside(
        "its own question answered twice",
        QUESTION + PIPE + "import json\n"
        "speak(json.dumps({'id': question()['id'], 'ok': [[6.0, -4.0, 1.0, 1.0]]}).encode() + b'\\n')\nreturn x",
        1,  # the second answer is none to the next question
        ends="crashed",
    ),
    inside(
        "a number of marks for an answer",
        QUESTION
        + "question()['ask'] = 'value'; question()['points'] = 99\nreturn {'status': 'ok', 'points': 99}",
    ),
    after(
        "the program inside begun again",
        "from chunkprefill_grading.sandbox import worker\nworker.main()",
        why="BadValue",  # its pipes are put away
    ),
    after(
        "a pipe that leads nowhere",
        QUESTION + "import os\nnull = os.open('/dev/null', os.O_RDWR)\n"
        "for end in ends():\n    if end.writable(): os.dup2(null, end.fileno())",
        "timeout",
        why="did nothing",
    ),
    Attack(
        "questions of its own making",
        (
            *HONEST,
            QUESTION + "import os\nr, w = os.pipe()\n"
            'os.write(w, b\'{"id": "0", "ask": "names", "with": {"names": []}}\\n\' * 9)\n'
            "for end in ends():\n    if end.readable(): os.dup2(r, end.fileno())",
        ),
        "crashed",
        None,
        why="an answer to another question",
    ),
    after(
        "blanks before each answer",
        PIPE + "import builtins\nspeak(b'  ')",
    ),
    deciding(
        "an answer that drips",
        PIPE + "import time\nfor _ in range(400): speak(b' '); time.sleep(0.03)\nreturn plan(state)",
        ends="timeout",
    ),
    after("a hand over all that is read", "import sys\nsys.setprofile(lambda *a: [][0])"),
    Attack(
        "a tracer that rewrites what is asked",
        (
            *HONEST[1:],
            "import sys\ndef trace(frame, event, arg):\n"
            "    if 'name' in frame.f_locals: frame.f_globals['UNANSWERED'] = ()\n    return trace\n"
            "sys.settrace(trace)\nnumber = 41",
        ),
        "ok",
        2,
    ),
    after(
        "words at the very end",
        PIPE + "import atexit\natexit.register(speak, b'{\"ok\": 42}\\n')\n"
        "class Last:\n    def __del__(self): speak(b'{\"ok\": 42}\\n')\nlast = Last()",
    ),
    after(
        "words when rubbish is collected",
        PIPE + "import gc\ngc.callbacks.append(lambda *a: speak(b'{\"ok\": 42}\\n'))\n"
        "gc.set_threshold(1)\nx = [[] for _ in range(10_000)]",
        "crashed",
    ),
    after("every warning an error", "import warnings\nwarnings.simplefilter('error')"),
    Attack(
        "every import a failure",
        (*HONEST, "import builtins\ndef no(*a, **k): raise ImportError('no')\nbuiltins.__import__ = no"),
        "ok",
        2,  # the library loads its parts when they are used
        why="ImportError",
    ),
    after("text that is read otherwise", "import codecs\ncodecs.register(lambda name: 1 / 0)"),
    after(
        "a file of results of its own",
        "for name in ('Mallory.json', 'log.jsonl'):\n    open(name, 'w').write('{\"score\": 99}')",
    ),
]
#: errors and names that lie about themselves, when there is nothing to hide yet
ERRORS = [
    Attack(name, (*HONEST, code), "ok", 3)
    for name, code in {
        "an error in a cell that is none": "raise SyntaxError('x', ('<cell 99999999>', 'one', [], {}))",
        "an error in line minus one": "raise SyntaxError('x', ('<cell 1>', -10 ** 30, 1, 'x'))",
        "an error with a line of text": "e = SyntaxError('x', ('<cell 1>', 1, 1, 'x')); e.lineno = '<b>'; raise e",
        "an error whose kind is a picture": "raise type('<img src=x onerror=alert(1)>\\x1b[2J', (Exception,), {})",
        "an error that says formulas": "raise ValueError('=HYPERLINK(\"http://x\")\\n@SUM(1)\\t+1')",
        "an error that turns the line round": "raise ValueError('\\u202e\\u2066score: 100')",
        "an error that is no text": "class E(Exception):\n    __str__ = lambda self: b'x'\nraise E",
        "errors in errors": "e = ValueError('x'); e.__cause__ = e.__context__ = e; raise e",
        "five hundred cells' errors in one": "raise ExceptionGroup('x', [ValueError('y' * 9999)] * 500)",
    }.items()
]
ERRORS += [
    inside(
        "a kind that names itself",
        "class M(type):\n    __name__ = property(lambda c: 1 / 0)\nclass E(Exception, metaclass=M): pass\nraise E",
        ends="crashed",
    ),
    inside(
        "a trace without end",
        "class E(Exception):\n    @property\n    def __traceback__(self): return self\n    tb_next = property(lambda s: s)\n"
        "    tb_lineno = 1\n    class tb_frame:\n        class f_code: co_filename = '<cell 1>'\nraise E",
        ends="timeout",
    ),
]
#: values that are larger, or other, than they look
VALUES = [
    *(
        Attack(name, (DOUBLE, POLICY, code), "ok", 2)
        for name, code in {
            "an array of no bytes and endless length": "import numpy\nnumber = numpy.broadcast_to(42, (1 << 50,))",
            "the same view of one number for ever": "import numpy as np\n"
            "number = np.lib.stride_tricks.as_strided(np.zeros(1), (1 << 40, 1 << 20), (0, 0))",
            "a decimal beyond all memory": "from decimal import Decimal\nnumber = Decimal('1E+999999999')",
            "a fraction of long numbers": "from fractions import Fraction\nnumber = Fraction(10 ** 40000, 3)",
            "a number of long text": "import sys\nsys.set_int_max_str_digits(0)\nnumber = 10 ** 100000",
            "a text of a power": "number = '10^999999999'",
            "a range without end": "number = range(10 ** 18)",
            "a pickle that opens files": "import os\nclass R:\n"
            "    def __reduce__(self): return (os.system, ('touch /tmp/pwned',))\nnumber = R()",
            "bytes of a pickle": "import pickle\nnumber = pickle.dumps(42)",
            "a class that says it is an int": "class I:\n    __class__ = int\n    __eq__ = lambda s, o: True\n"
            "    real = imag = numerator = 42\nnumber = I()",
            "a text that is equal to all": "class S(str):\n    __eq__ = lambda s, o: True\n    __hash__ = str.__hash__\n"
            "number = S('41')",
            "a dict that differs at each look": "import itertools\nclass D(dict):\n    n = itertools.count()\n"
            "    def __getitem__(self, k): return next(self.n)\n    def keys(self): return [str(next(self.n))]\nnumber = D()",
            "a record of numpy's": "import numpy\nnumber = numpy.zeros(1, [('points', 'f8'), ('status', 'U9')])",
            "an array of objects in itself": "import numpy\nnumber = numpy.empty(1, object); number[0] = number",
            "a coroutine": "async def f(): return 42\nnumber = f()",
            "a float that is written otherwise": "class F(float):\n    __repr__ = lambda s: '42'\nnumber = F(41.0)",
        }.items()
    ),
    inside("an array of no bytes", "import numpy\nreturn numpy.broadcast_to(0.0, (1 << 50,))"),
    inside(
        "an array that packs other bytes",
        "import numpy\nclass A(numpy.ndarray):\n    def tobytes(self, *a): return b'x'\n    def tolist(self): return [9.0] * 4\n"
        "return numpy.zeros(4).view(A)",
    ),
    deciding(
        "a plan that differs at each look",
        "class D(dict):\n    def items(self): return [(10 ** 9, -1)] * 9\nreturn cp.Plan(D(plan(state).tokens))",
    ),
    deciding("half a token", "return cp.Plan({rid: n + 0.5 for rid, n in plan(state).tokens.items()})"),
    deciding("true for one token", "return cp.Plan({rid: True for rid in plan(state).tokens})", 3),
    deciding("evicting by a text", "p = plan(state)\nreturn cp.Plan(p.tokens, 'abc')"),
]
#: what would go on afterwards, and what takes more than it shows
LEFT_BEHIND = [
    closed("a program by posix_spawn", "import os\nos.posix_spawn('/bin/true', ['true'], {})"),
    closed("a terminal's child", "import pty\npty.fork()"),
    closed("a bare thread", "import _thread\n_thread.start_new_thread(print, ())"),
    closed(
        "a pool of threads",
        "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(1).submit(print).result(1)",
    ),
    closed(
        "memory that has a name",
        "from multiprocessing import shared_memory\nshared_memory.SharedMemory('x', create=True, size=9)",
    ),
    closed("a file of holes", "open('/tmp/x', 'wb').truncate(1 << 40)"),
    closed(
        "a file that is laid out",
        "import os\nos.posix_fallocate(os.open('/tmp/x', os.O_CREAT | os.O_RDWR), 0, 1 << 30)",
    ),
    closed(
        "a core of its memory",
        "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))",
    ),
    # its frames lie on the heap: the grader sees too much memory, or Python finds none first and raises an error
    after("a deep stack", "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): return [f()]\nf()"),
    after("an expression without end", "eval('-' * 10 ** 6 + '1')"),
    after("brackets without end", "eval('(' * 10 ** 5 + ')' * 10 ** 5)"),
    Attack(
        "all files open, for good",
        (*HONEST, "kept = []\ntry:\n    while True: kept.append(open('/dev/zero'))\nexcept OSError: pass"),
        "ok",
        2,  # the library loads its parts when they are used
        why="OSError",
    ),
    after(
        "a home that speaks at the next start",
        "import os\nfor name in ('usercustomize', 'sitecustomize', 'json', 'numpy', 'chunkprefill'):\n"
        "    open(f'{name}.py', 'w').write('raise SystemExit(1)')\nos._exit(0)",
        "crashed",
        why="left out",
    ),
    *(
        refused(name, call)
        for name, call in {
            "a message queue": "c.syscall(68, 0, 0o1600)",
            "semaphores": "c.syscall(64, 0, 1, 0o1600)",
            "a queue by name": "c.syscall(240, b'x', 0o102, 0o600, None)",
            "being traced": "c.ptrace(0, 0, 0, 0)",
            "another's memory, written": "c.syscall(311, 1, 0, 0, 0, 0, 0)",
            "another's files": "c.syscall(438, 3, 0, 0)",
            "a signal with words": "c.syscall(129, 1, 9, ctypes.create_string_buffer(128))",
            "a signal to a thread": "c.syscall(234, 1, 1, 9)",
            "comparing with another": "c.syscall(312, 1, 1, 0, 0, 0)",
            "a new kind of clone": "c.syscall(435, ctypes.create_string_buffer(88), 88)",
            "another clock": "c.syscall(227, 0, ctypes.create_string_buffer(16))",
            "another name of the machine": "c.sethostname(b'x', 1)",
            "another table of mounts": "c.syscall(428, -100, b'/', 1)",
            "the kernel's log": "c.syscall(103, 3, ctypes.create_string_buffer(99), 99)",
        }.items()
    ),
]
SHAPES = [
    Attack("one cell twice, the first one wrong", ("number = 41", *HONEST), "ok", 3),
    Attack("one cell that holds all", ("\n".join(HONEST),), "ok", 3),
    Attack(
        "a cell cut in two",
        (NUMBER, "def double(x):", "    return [2 * each for each in x]", DOUBLE, POLICY),
        "ok",
        3,
    ),
    Attack("an answer in another's cell", (f"{NUMBER}\n{DOUBLE}", "# nothing", POLICY), "ok", 3),
    Attack("a thousand cells that fail", (*HONEST, *("1 / 0",) * 1000), "ok", 3),
]
LATER = [*PEEKING, *FORGED, *ERRORS, *VALUES, *LEFT_BEHIND, *SHAPES]
