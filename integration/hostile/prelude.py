# Goes before every payload in Python.
import ctypes, errno, os, signal, socket, struct, sys, threading, time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def said(name, result, number=0):
    print(f"{name}: {'done' if result >= 0 else errno.errorcode.get(number, number)}", flush=True)


def call(name, number, *arguments):
    """A system call: a word is a pointer to it, `b:N` a pointer to N zeroes. Says the errno, or `done`."""
    words = []
    for argument in arguments:
        if isinstance(argument, str):
            size = int(argument[2:]) if argument.startswith("b:") else 0
            words.append(ctypes.create_string_buffer(b"" if size else argument.encode(), size or len(argument) + 1))
        else:
            words.append(ctypes.c_long(argument))
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *words)
    said(name, result, ctypes.get_errno())
    return result


def tried(name, action):
    """What Python does, said in the same words."""
    try:
        result = action()
    except OSError as error:
        said(name, -1, error.errno)
    else:
        said(name, 0)
        return result


def reads(path):
    """The bytes of a file, or its errno."""
    try:
        with open(path, "rb") as file:
            print(f"{path}: {len(file.read(1 << 20))} bytes", flush=True)
    except OSError as error:
        print(f"{path}: {errno.errorcode[error.errno]}", flush=True)


