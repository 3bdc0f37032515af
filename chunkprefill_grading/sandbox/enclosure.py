"""What the program inside does before it reads student code: a small /tmp, another user, a filter of calls.

Bubblewrap has built the namespaces. These three steps need rights that student code must not have, so the
program takes them first, gives the rights up, and cannot get them back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform

from chunkprefill_grading.sandbox.seccomp import filter_program

TMP = "/tmp"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")  # the machine's own nodes
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 1, 2, 4, 8, 32, 4096
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION = 0x20080522
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1


def enclose(uid: int | None, tmp_bytes: int, n_made: int) -> bool:
    """Mount /tmp with its limits, become `uid` (None: stay), give up all rights. True: /tmp is bounded.

    Raises OSError where rights cannot be given up.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    owner = os.getuid() if uid is None else uid
    group = os.getgid() if uid is None else uid
    how = f"size={tmp_bytes},nr_inodes={n_made},mode=0700,uid={owner},gid={group}"
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    bounded = libc.mount(b"tmpfs", TMP.encode(), b"tmpfs", flags, how.encode()) == 0
    for device in DEVICES:  # they still read and write; their modes, owners and times stay as they are
        libc.mount(None, device.encode(), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID, None)
    if uid is not None:
        if not bounded:  # it stays the first user's, and nothing can be written there
            with contextlib.suppress(OSError):
                os.chown(TMP, uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
    os.chdir(TMP)
    return bounded


def lift_soft_limit() -> None:
    """The judge that started this program bounds its own address space; that bound is not meant for torch."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def seal() -> None:
    """Hold this process to the filter of system calls, for good. OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = filter_program(platform.machine(), os.getpid())

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_char_p)]

    filters = Program(len(program) // 8, program)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "rights cannot be renounced")
    number = _SECCOMP[platform.machine()]
    if libc.syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(filters)):
        raise OSError(ctypes.get_errno(), "the filter of system calls cannot be set")
