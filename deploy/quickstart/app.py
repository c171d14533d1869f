"""The application of the quickstart: a Flask app that counts its requests in an area, whatever worker serves them.

    gunicorn -w 4 app:app        finds the service by STATEHOUSE_URL and STATEHOUSE_TOKEN

Layout of the area "quickstart" (64 KiB):
    0       u64   hits: requests of "/"
    8       u64   how many slots are in use
    64 + 8i u64   slot i, of one worker thread: requests it counted << 32 | number of the last one
"""
import struct
import threading

import flask

import statehouse

AREA_BYTES = 64 * 1024
HITS = 0
SLOTS_USED = 8
FIRST_SLOT = 64

client = statehouse.connect()
area = client.area("quickstart", size=AREA_BYTES)
app = flask.Flask(__name__)
mine = threading.local()


def slot_pos():
    """The slot of this thread; a forked worker's threads take new ones."""
    if not hasattr(mine, "pos"):
        mine.pos = FIRST_SLOT + 8 * (area.add_u64(SLOTS_USED, 1) - 1)
    return mine.pos


def slots():
    used = area.load_u64(SLOTS_USED)
    return struct.unpack(f"={used}Q", area.read(FIRST_SLOT, 8 * used))


@app.get("/")
def hit():
    """Counts, and answers the new total: one atomic operation, some nanoseconds."""
    return str(area.add_u64(HITS, 1))


@app.get("/once/<int:number>")
def once(number):
    """Counts request `number` once, however often it is sent.

    Count and number share one word, and a word is stored whole or not at all, so a worker that is killed here has either
    counted the request, and every other worker can see so, or it has not.
    """
    if all(word & 0xFFFFFFFF != number for word in slots()):
        pos = slot_pos()
        area.store_u64(pos, ((area.load_u64(pos) >> 32) + 1) << 32 | number)
    return client.transport
