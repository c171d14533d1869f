"""The first application of the quickstart: a Flask app that counts its requests, whatever worker serves them.

    gunicorn -w 4 app:app        every worker finds the state by HOST, PORT and KEY, and the first one starts the service

In the shared dict: "number" (requests of "/", counted under the lock), "hits" (requests of "/incr") and "once" (those of "/once/…").
Layout of the area "quickstart" (64 KiB), which counts those of "/once/…" as well:
    8       u64   how many slots are in use
    64 + 8i u64   slot i, of one worker thread: requests it counted << 32 | number of the last one
"""
import os
import struct
import threading

import flask

from statehouse.compat import managers

HOST, PORT, KEY = os.environ["HOST"], int(os.environ["PORT"]), os.environ["KEY"]
AREA_BYTES = 64 * 1024
SLOTS_USED = 8
FIRST_SLOT = 64

shared_dict, shared_lock = managers.get_shared_state(HOST, PORT, KEY)
area = managers.connect(HOST, PORT, KEY).area("quickstart", size=AREA_BYTES)
app = flask.Flask(__name__)
mine = threading.local()


@app.get("/")
def count():
    """The well-known way: read, add and write under the lock."""
    with shared_lock:
        shared_dict["number"] = shared_dict.get("number", 0) + 1
        return str(shared_dict["number"])


@app.get("/incr")
def incr():
    """The short way: one atomic operation, a tenth of a microsecond."""
    return str(shared_dict.incr("hits"))


def slot_pos():
    """The slot of this thread; a new worker's threads take new ones."""
    if not hasattr(mine, "pos"):
        mine.pos = FIRST_SLOT + 8 * (area.add_u64(SLOTS_USED, 1) - 1)
    return mine.pos


def slots():
    used = area.load_u64(SLOTS_USED)
    return struct.unpack(f"={used}Q", area.read(FIRST_SLOT, 8 * used))


@shared_dict.transactional(retries=1000)
def count_in_dict(t, number):
    """Counts a request unless it was counted: both keys are written, or none."""
    if t.setdefault(f"once/{number}", 0) == 0:
        t[f"once/{number}"] = 1
        t.incr("once")


@app.get("/once/<int:number>")
def once(number):
    """Counts request `number` once, however often it is sent: in the dict, and in the area.

    In the area, count and number share one word, and a word is stored whole or not at all, so a worker that is killed here has
    either counted the request, and every other worker can see so, or it has not.
    """
    count_in_dict(number)
    if all(word & 0xFFFFFFFF != number for word in slots()):
        pos = slot_pos()
        area.store_u64(pos, ((area.load_u64(pos) >> 32) + 1) << 32 | number)
    return shared_dict.transport
