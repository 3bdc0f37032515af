"""The system calls that student code may make, as a filter that the kernel reads; all others are refused.

The numbers are the kernel's own, fixed for ever: `arch/x86/entry/syscalls/syscall_64.tbl` and
`include/uapi/asm-generic/unistd.h`. Each group says what Python, numpy or torch needs it for. What a group
leaves out is what could reach another process, another submission, or memory that no limit counts.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

LATEST = 450  # younger calls do not exist for student code
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in the kernel's record of a call
_X32 = 0x40000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

Numbers = tuple["int | None", "int | None"]  # x86_64, aarch64; None where the processor has no such call

ALLOWED: dict[str, dict[str, Numbers]] = {
    # the allocator, and libraries that load on first use; RLIMIT_DATA and RLIMIT_AS count what they take
    "memory": {
        "brk": (12, 214),
        "munmap": (11, 215),
        "mremap": (25, 216),
        "mprotect": (10, 226),
        "msync": (26, 227),
    },
    # the pipes to the grader, files in /tmp, modules
    "read and write": {
        "read": (0, 63),
        "pread64": (17, 67),
        "readv": (19, 65),
        "preadv": (295, 69),
        "preadv2": (327, 286),
        "write": (1, 64),
        "pwrite64": (18, 68),
        "writev": (20, 66),
        "pwritev": (296, 70),
        "pwritev2": (328, 287),
        "lseek": (8, 62),
        "sendfile": (40, 71),
    },
    # RLIMIT_NOFILE counts descriptors; a pipe keeps its first size, because fcntl may not change it
    "open and close": {
        "open": (2, None),
        "openat": (257, 56),
        "creat": (85, None),
        "close": (3, 57),
        "close_range": (436, 436),
        "dup": (32, 23),
        "dup2": (33, None),
        "dup3": (292, 24),
        "pipe": (22, None),
        "pipe2": (293, 59),
    },
    "look at files": {
        "stat": (4, None),
        "fstat": (5, 80),
        "lstat": (6, None),
        "newfstatat": (262, 79),
        "statx": (332, 291),
        "statfs": (137, 43),
        "fstatfs": (138, 44),
        "access": (21, None),
        "faccessat": (269, 48),
        "faccessat2": (439, 439),
        "getdents": (78, None),
        "getdents64": (217, 61),
        "readlink": (89, None),
        "readlinkat": (267, 78),
        "getcwd": (79, 17),
        "chdir": (80, 49),
        "fchdir": (81, 50),
    },
    # of its own, in /tmp: the mount bounds bytes and inodes; no links, modes, owners, times or attributes
    "change files": {
        "mkdir": (83, None),
        "mkdirat": (258, 34),
        "rmdir": (84, None),
        "unlink": (87, None),
        "unlinkat": (263, 35),
        "rename": (82, None),
        "renameat": (264, 38),
        "renameat2": (316, 276),
        "truncate": (76, 45),
        "ftruncate": (77, 46),
        "fallocate": (285, 47),
        "umask": (95, 166),
    },
    # the grader counts time in which nothing happens
    "wait": {
        "select": (23, None),
        "pselect6": (270, 72),
        "poll": (7, None),
        "ppoll": (271, 73),
        "nanosleep": (35, 101),
        "clock_nanosleep": (230, 115),
        "pause": (34, None),
        "rt_sigsuspend": (130, 133),
        "rt_sigtimedwait": (128, 137),
        "sched_yield": (24, 124),
        "restart_syscall": (219, 128),
    },
    "signals to itself": {
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigpending": (127, 136),
        "rt_sigreturn": (15, 139),
        "sigaltstack": (131, 132),
    },
    "ask about itself": {
        "getpid": (39, 172),
        "getppid": (110, 173),
        "gettid": (186, 178),
        "getuid": (102, 174),
        "geteuid": (107, 175),
        "getgid": (104, 176),
        "getegid": (108, 177),
        "getresuid": (118, 148),
        "getresgid": (120, 150),
        "getgroups": (115, 158),
        "getpgrp": (111, None),
        "getpgid": (121, 155),
        "getsid": (124, 156),
        "uname": (63, 160),
        "sysinfo": (99, 179),
        "getrusage": (98, 165),
        "times": (100, 153),
        "getrlimit": (97, 163),
        "getpriority": (140, 141),
        "sched_getaffinity": (204, 123),
        "getcpu": (309, 168),
    },
    "read clocks, draw numbers": {
        "time": (201, None),
        "gettimeofday": (96, 169),
        "clock_gettime": (228, 113),
        "clock_getres": (229, 114),
        "getitimer": (36, 102),
        "getrandom": (318, 278),
    },
    # it has no children to wait for, and the C library asks all the same
    "end": {
        "exit": (60, 93),
        "exit_group": (231, 94),
        "wait4": (61, 260),
        "waitid": (247, 95),
    },
}

# call: (numbers, which argument, the values that pass). The kernel reads 32 bits of each of these.
BY_VALUE: dict[str, tuple[Numbers, int, tuple[int, ...]]] = {
    # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. Not leases, notices, locks, owners and
    # signals, which reach others who open the same file, and not the sizes of pipes, which no limit counts.
    "fcntl": ((72, 25), 1, (0, 1, 2, 3, 4, 1030)),
    # TCGETS and TIOCGWINSZ (is it a terminal?), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
    "ioctl": ((16, 29), 1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    # PR_SET_NAME, PR_GET_NAME
    "prctl": ((157, 167), 0, (15, 16)),
    # ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM, ARCH_REQ_XCOMP_PERM: wide registers, which torch asks for
    "arch_prctl": ((158, None), 0, (0x1021, 0x1022, 0x1023)),
    # NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP. Not what
    # pages out or merges memory that others map.
    "madvise": ((28, 233), 2, (0, 1, 2, 3, 4, 8, 14, 15, 16, 17)),
    # the limits of this process alone; they can only sink
    "prlimit64": ((302, 261), 0, (0,)),
}
# call: (numbers, which argument, bits that may not all be set)
BY_BITS: dict[str, tuple[Numbers, int, int]] = {
    # MAP_SHARED | MAP_ANONYMOUS: memory of the kernel's, which RLIMIT_DATA does not count
    "mmap": ((9, 222), 3, 0x21),
}
# call: (numbers, which argument, bits of which all must be set)
WITH_BITS: dict[str, tuple[Numbers, int, int]] = {
    # FUTEX_PRIVATE_FLAG: only threads of its own can wake it, and the kernel pins no page of a file
    "futex": ((202, 98), 1, 0x80),
}
# Signals: the argument that names a process must name the caller; `filter_program` is told its number.
TO_ITSELF: dict[str, Numbers] = {"kill": (62, 129), "tgkill": (234, 131)}
# What the C library or Python tries next when it is told so; EPERM for all others.
ERRORS: dict[str, tuple[Numbers, int]] = {
    "clone": ((56, 220), errno.EAGAIN),  # a thread or a process "cannot start"
    "fork": ((57, None), errno.EAGAIN),
    "vfork": ((58, None), errno.EAGAIN),
    "clone3": ((435, 435), errno.ENOSYS),  # then it asks for clone
    "openat2": ((437, 437), errno.ENOSYS),  # then for openat
    "epoll_pwait2": ((441, 441), errno.ENOSYS),
    "listxattr": ((194, 11), errno.ENOTSUP),  # shutil.copy goes on without
    "llistxattr": ((195, 12), errno.ENOTSUP),
    "fsync": ((74, 82), 0),  # /tmp is memory: done, without a word to the disks of others
    "fdatasync": ((75, 83), 0),
}
MAX_JUMP = 255


def filter_program(machine: str, pid: int) -> bytes:
    """The filter for `platform.machine()` and the process `pid`, as it knows itself.

    Raises ValueError for a processor whose numbers are not known.
    """
    column = column_of(machine)
    program = [_line(_LOAD, _ARCH), _line(_EQUAL, AUDIT[machine], 1, 0), _line(_RETURN, _KILL)]
    program += [_line(_LOAD, _NR), _line(_AT_LEAST, _X32, 0, 1), _line(_RETURN, _KILL)]
    for group in ALLOWED.values():
        for numbers in group.values():
            program += _if_number(numbers[column], [_line(_RETURN, _ALLOW)])
    for numbers, argument, values in BY_VALUE.values():
        program += _if_number(numbers[column], _one_of(argument, values))
    for numbers in TO_ITSELF.values():
        program += _if_number(numbers[column], _one_of(0, (pid,)))
    for numbers, argument, bits in BY_BITS.values():
        program += _if_number(numbers[column], _not_all(argument, bits))
    for numbers, argument, bits in WITH_BITS.values():
        program += _if_number(numbers[column], _all(argument, bits))
    for numbers, error in ERRORS.values():
        program += _if_number(numbers[column], [_line(_RETURN, _ERRNO | error)])
    program += [_line(_AT_LEAST, LATEST + 1, 0, 1), _line(_RETURN, _ERRNO | errno.ENOSYS)]
    return b"".join([*program, _line(_RETURN, _ERRNO | errno.EPERM)])


def column_of(machine: str) -> int:
    """Which of the two numbers is that of the processor. ValueError for one that is not known."""
    if machine not in AUDIT:
        raise ValueError(f"no filter of system calls for {machine}: {', '.join(AUDIT)} have one")
    return [*AUDIT].index(machine)


def _if_number(number: int | None, then: list[bytes]) -> list[bytes]:
    """`then`, which ends in a return, for the call of that number; the accumulator holds a call's number."""
    if number is None:
        return []
    assert len(then) <= MAX_JUMP
    return [_line(_EQUAL, number, 0, len(then)), *then]


def _one_of(argument: int, values: Sequence[int]) -> list[bytes]:
    """Allow the call if the low half of an argument is one of the values."""
    tests = [_line(_LOAD, _ARGS + 8 * argument)]
    for value in values:
        tests += [_line(_EQUAL, value, 0, 1), _line(_RETURN, _ALLOW)]
    return [*tests, _line(_RETURN, _ERRNO | errno.EPERM)]


def _not_all(argument: int, bits: int) -> list[bytes]:
    """Allow the call unless all of the bits are set in an argument."""
    return [
        _line(_LOAD, _ARGS + 8 * argument),
        _line(_AND, bits),
        _line(_EQUAL, bits, 0, 1),
        _line(_RETURN, _ERRNO | errno.EPERM),
        _line(_RETURN, _ALLOW),
    ]


def _all(argument: int, bits: int) -> list[bytes]:
    """Allow the call if all of the bits are set in an argument."""
    return [
        _line(_LOAD, _ARGS + 8 * argument),
        _line(_AND, bits),
        _line(_EQUAL, bits, 0, 1),
        _line(_RETURN, _ALLOW),
        _line(_RETURN, _ERRNO | errno.EPERM),
    ]


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
