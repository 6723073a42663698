"""Functions that sandboxes are asked for in tests."""

import os
import signal
import time

import numpy as np

from medseg.core.errors import GeometryError


def count(length: int):
    return np.arange(length, dtype=np.int16).reshape(1, length)


def refuse():
    raise GeometryError("no place", code="GEO-009", hint="look for one")


def divide():
    return np.array(1 // 0)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def spin():
    while True:
        pass


def sleep(seconds: float):
    time.sleep(seconds)
    return np.array([os.getpid()])


def swallow(num_bytes: int):
    return np.array([np.ones(num_bytes, np.uint8).sum()])


def chatter():
    os.write(1, b"0000 not an answer")
    os.write(2, b"nor this")
    return np.array([7])
