"""A reader and a writer of shmd's ring channels in plain Python on x86-64, written from PROTOCOL.md alone:

    client.py read SOCKET CHANNEL oldest|new COUNT [bell|times]  prints messages as lines; sleeps on semaphore or bell
    client.py write SOCKET CHANNEL                                publishes the lines of its standard input; evicts nobody
Neither of them looks for another daemon: the reader ends with its own. With `times`, lines begin with the publish time."""
import array, collections, ctypes, itertools, json, os, pathlib, select, socket, sys, time

libc, LONG, POINTER = ctypes.CDLL("libc.so.6", use_errno=True), ctypes.c_long, ctypes.c_void_p
libc.mmap.restype, libc.mmap.argtypes = POINTER, [POINTER, ctypes.c_size_t] + [ctypes.c_int] * 3 + [LONG]
libc.sem_post.argtypes, libc.sem_trywait.argtypes, libc.syscall.argtypes = [POINTER], [POINTER], [LONG] * 7
libc.sem_clockwait.argtypes = [POINTER, ctypes.c_int, POINTER]
U32, U64, DATA, NONE, LAYOUT, CONTROL, WAKE, SPACE = ctypes.c_uint32, ctypes.c_uint64, 4096, 2**64 - 1, 2, 192, 256, 320
REGISTERED, EVICTED, CLOSING, MOVES, OVER = 1, 2, 4, 0xFFFFFF00, 1 << 63
MARK, FLOOR, NEXT_FLOOR, CAPACITY, RESIZES, WRITER, BEAT, PENDING, START = 128, 256, 512, 384, 408, 416, 424, 440, 448
CURSOR, NUMBER, RECEIVED, LOST, SEEN, PID, STARTED, WAITING, WANTED, DUE, OFF = 0, 8, 16, 24, 32, 40, 48, 64, 128, 136, 384
Place = collections.namedtuple("Place", "pos off seq bytes")
OWN = libc.mmap(None, 4096, 3, 0x22, -1, 0)  # memory of this process, for a semaphore
TICKS = int(pathlib.Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
fence = lambda: (libc.sem_post(OWN), libc.sem_trywait(OWN))

class Memory:  # a mapping; each field is loaded and stored by one access of its size
    def __init__(self, fd, length=4096, protection=3):
        self.at = libc.mmap(None, length, protection, 1, fd, 0)
        assert self.at != NONE, os.strerror(ctypes.get_errno())
    def load(self, at, kind=U64):
        return kind.from_address(self.at + at).value
    def set(self, *fields, kind=U64):
        for at, value in fields:
            kind.from_address(self.at + at).value = value
    def sleep(self, at, seconds):
        until = time.monotonic_ns() + int(seconds * 1e9)
        libc.sem_clockwait(self.at + at, time.CLOCK_MONOTONIC, (LONG * 2)(until // 10**9, until % 10**9))
    def place(self, at):
        version = self.load(at)
        place = Place(*(self.load(at + 64 + 32 * (version % 2) + 8 * n) for n in range(4)))
        return place if self.load(at) == version else self.place(at)
    def publish(self, at, place):
        version, check = self.load(at) + 1, 0x9E3779B97F4A7C15
        for n, field in enumerate(place):
            self.set((at + 64 + 32 * (version % 2) + 8 * n, field))
            check = (check * 0x9E3779B97F4A7C15 + field) & NONE
        self.set((at + 48 + 8 * (version % 2), check), (at, version))

class Link:  # the connection: lines of JSON, and the descriptors that come with them
    def __init__(self, path):
        self.socket, self.text, self.taken, self.fds, self.closed = socket.socket(socket.AF_UNIX), b"", 0, [], False
        self.socket.connect(path)
    def send(self, **body):
        self.socket.sendall(json.dumps({"v": 1, **body}).encode() + b"\n")
    def lines(self, wait=0):
        while True:
            while b"\n" in self.text:
                line, self.text = self.text.split(b"\n", 1)
                begun, self.taken = self.taken, self.taken + len(line) + 1
                yield json.loads(line), [fd for end, fd in self.fds if begun < end <= self.taken]
            if self.closed or not select.select([self.socket], [], [], wait)[0]:
                return
            text, rights, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
            self.text, self.closed = self.text + text, not text
            self.fds += [(self.taken + len(self.text), fd) for right in rights for fd in array.array("i", right[2])]
    def request(self, op, channel):
        self.send(op=op, channel=channel, program="client.py", layout=LAYOUT)
        reply, fds = next(self.lines(10))
        assert "ok" in reply, reply
        return reply["ok"][op]["geometry"], fds, reply["ok"][op]

class Ring:
    def enter(self, fd, geometry, protection):
        self.fd, self.geometry, self.align, self.most = fd, geometry, geometry["align"], geometry["max_capacity"]
        self.base, self.segment = max(64, self.align) - 8, Memory(fd, DATA + self.most, protection)
        self.timed = geometry.get("features", 0) & 1  # the only feature known here: a time before each record's header
        self.stride = lambda length: length + 8 + 8 * self.timed + self.align - 1 & -self.align
        flags = ["block", "drop", "overwrite"].index(geometry["on_full"]) | geometry["asymmetric"] << 8
        facts = int.from_bytes(b"SHMDRING", "little"), LAYOUT | self.align << 32, geometry["instance"], self.most
        for at, fact in zip((0, 8, 16, 24, 32, 40, 120), facts + (geometry["max_message"], flags, self.timed)):
            assert self.segment.load(at) == fact, f"{self.segment.load(at)} at {at} of the segment, not {fact}"
    def header(self):
        return self.segment.load(DATA + self.at.off)
    def behind(self, header):  # the place behind the record at the present place, and its payload bytes
        at, kind, value = self.at, header & 3, header >> 2 & (1 << 38) - 1
        stride = self.stride(value)
        off, size = at.off + stride if kind == 1 else 16 * value + 8, min(os.fstat(self.fd).st_size - DATA, self.most)
        valid = kind in (1, 2) and header >> 40 == at.seq % 2**24 and off + 8 <= size and (off + 8) % self.align == 0
        assert valid and (kind == 2 or value <= self.geometry["max_message"]), f"{header:#x} is no header of {at}"
        if kind == 2:
            return Place(at.pos + 8, off, at.seq, at.bytes), 0
        return Place(at.pos + stride, off, at.seq + 1, at.bytes + value), value

class Reader(Ring):
    def __init__(self, path, channel, start, how):
        self.link, self.moves, self.made, self.joined, self.received, self.lost = Link(path), [], 0, False, 0, 0
        geometry, (segment, page, self.bell), _ = self.link.request("attach", channel)
        self.enter(segment, geometry, 1)
        self.page, self.how, self.shows = Memory(page), 2 if how == "bell" else 1, how == "times"
        self.page.set((STARTED, TICKS), (PID, os.getpid()))
        begun = self.at = max(self.segment.place(at) for at in (NEXT_FLOOR, FLOOR) + (MARK,) * (start == "new"))
        while start == "new" and self.at.pos - begun.pos <= 65536 and (header := self.header()):
            self.at = self.behind(header)[0] if self.intact() else self.at
        self.give_back()
    def give_back(self):
        due = self.at.off + (0 if self.geometry["ack"] else self.segment.load(CAPACITY) // 8)
        self.page.set((NUMBER, self.at.seq), (RECEIVED, self.received), (LOST, self.lost), (SEEN, time.monotonic_ns()))
        self.page.set((DUE, due), (OFF, self.at.off), (CURSOR, self.at.pos))
        fence()
        if 0 < self.page.load(WANTED) <= self.at.pos:
            self.page.set((WANTED, 0))
            libc.sem_post(self.page.at + SPACE)
    def listen(self, wait=0):
        self.moves += [(line, fds[0]) for line, fds in self.link.lines(wait) if line.get("event") == "moved"]
    def intact(self):  # whether what was read at the present place is valid; else the reader may have gone on
        control = self.page.load(CONTROL, U32)
        assert not control & EVICTED, "evicted"
        if control & MOVES != self.made:
            self.joined = self.listen(0 if self.moves else 0.1)
            if not self.moves:
                return False
            if self.at.pos >= self.moves[0][0]["pos"]:
                line, fd = self.moves.pop(0)
                self.enter(fd, line["geometry"], 1)
                self.made = self.made + 256 & MOVES
                return self.go_to(Place(line["pos"], self.base, line["seq"], 0))
        if not self.joined:
            floor = self.segment.place(FLOOR)
            if floor.pos > self.at.pos:
                return self.go_to(floor)
            self.joined = control == self.made | REGISTERED and self.geometry["on_full"] != "overwrite"
        return True
    def go_to(self, place):
        self.lost, self.at = self.lost + place.seq - self.at.seq, place
        self.give_back()
    def messages(self):
        while True:
            header = self.header()
            if not self.intact():
                continue
            if header == 0:
                self.give_back()
                if (self.link.closed or self.page.load(CONTROL, U32) & CLOSING) and self.header() == 0:
                    return
                self.sleep()
                continue
            (behind, length), time_ns = self.behind(header), self.segment.load(DATA + self.at.off - 8)
            message = ctypes.string_at(self.segment.at + DATA + self.at.off + 8, length)
            if not self.intact():
                continue
            self.at, is_message = behind, header & 3 == 1
            self.received += is_message
            if behind.off >= self.page.load(DUE) or not is_message:
                self.give_back()
            if is_message:
                yield b"%d " % time_ns * self.shows + message
    def sleep(self):
        self.page.set((WAITING, self.how), kind=U32)
        fence()
        if self.geometry["asymmetric"]:
            libc.syscall(324, 2, 0, 0, 0, 0, 0)
        news = self.header() or self.segment.place(FLOOR).pos > self.at.pos
        if not news and self.page.load(CONTROL, U32) & ~REGISTERED == self.made:
            if self.how == 1:
                self.page.sleep(WAKE, 1)
            elif self.bell in select.select([self.bell, self.link.socket], [], [], 1)[0]:
                os.read(self.bell, 4096)
        self.page.set((WAITING, 0), kind=U32)
        self.listen()

class Writer(Ring):
    def __init__(self, path, channel):
        self.link, self.readers, self.taken, self.shrink, self.asked = Link(path), {}, 0, None, False
        geometry, (segment, lease), reply = self.link.request("publish", channel)
        self.enter(segment, geometry, 3)
        self.lease, self.capacity = Memory(lease), reply["capacity"]
        self.light = (lambda: None) if geometry["asymmetric"] and libc.syscall(324, 4, 0, 0, 0, 0, 0) == 0 else fence
        self.at = self.segment.place(FLOOR)
        self.places = collections.deque([self.at])  # of the headers from the floor to the tail
        while header := self.header():
            self.at = self.behind(header)[0]
            self.places.append(self.at)
        self.segment.publish(NEXT_FLOOR, self.places[0])
        self.segment.publish(MARK, self.at)
        self.segment.set((CAPACITY, self.capacity), (PENDING, 0), (START, TICKS), (WRITER, os.getpid()))
        while self.idle() or self.lease.load(128):  # until all readers are named
            pass
    def is_current(self):
        assert not self.lease.load(0) & OVER, "the writer role is over"
        return self.lease.load(0) == self.generation
    def obey(self):  # takes the daemon's lines
        self.generation, self.limit, before = self.lease.load(0), 0, self.taken
        for line, fds in self.link.lines():
            self.taken, event = self.taken + 1, line["event"]
            if event == "reader_joined":
                page = Memory(fds[0])
                libc.syscall(202, OWN + 64, 5, 0, 0, page.at + CONTROL, 0x80000000 | 2 << 28)
                self.readers[line["reader"]] = [page, fds[1], self.places[0].pos]
            elif event == "reader_left":
                del self.readers[line["reader"]]
            elif event in ("grown", "shrink"):
                self.capacity, self.asked, self.shrink = line["capacity"], False, line if event == "shrink" else None
                self.segment.set((PENDING, self.capacity)) if self.shrink else self.resized(line["done"])
        if self.taken > before:
            self.link.send(event="taken", lines=self.taken)
        self.announce()
    def resized(self, done):
        self.segment.set((PENDING, 0), (CAPACITY, self.capacity), (RESIZES, self.segment.load(RESIZES) + done))
    def announce(self):
        self.light()
        self.is_current()
        for page, bell, _ in self.readers.values():
            how = page.load(WAITING, U32)
            if how and page.load(CURSOR) < self.at.pos:
                page.set((WAITING, 0), kind=U32)
                libc.sem_post(page.at + WAKE) if how == 1 else libc.send(bell, b"!", 1, 0x4040)
    def live(self):  # begin and end of what may not be written: records, and the header at the tail
        records = [(a.off, a.off + b.pos - a.pos) for a, b in itertools.pairwise(self.places)]
        return sorted(records + [(self.at.off, self.at.off + 8)])
    def hole(self, stride):  # where a record fits that does not fit at the tail; 0 if nowhere
        live, jumps = self.live(), sum(b.off - a.off != b.pos - a.pos for a, b in itertools.pairwise(self.places))
        starts = [self.base] + [(end + 7 + self.align & -self.align) - 8 for _, end in live]
        limits = [min(off, self.capacity) for off, _ in live] + [self.capacity]
        room, start = max((limit - start, start) for start, limit in zip(starts, limits))
        if room >= stride + 8 and jumps < 31:
            return start
        return self.base if len(self.places) == 1 and self.base + stride + 8 <= self.capacity else 0
    def put(self, header, behind, payload=b""):
        self.segment.set((DATA + behind.off, 0), *[(DATA + self.at.off - 8, time.monotonic_ns())] * (header & self.timed))
        ctypes.memmove(self.segment.at + DATA + self.at.off + 8, payload, len(payload))
        self.segment.set((DATA + self.at.off, header | self.at.seq % 2**24 << 40))
        self.at = behind
        self.places.append(behind)
        self.announce()
        self.segment.publish(MARK, behind)
    def jump(self, target):
        self.limit = 0
        self.put(2 | target // 16 << 2, Place(self.at.pos + 8, target, self.at.seq, self.at.bytes))
    def give_up(self):  # moves the floor as far as the readers allow; whether anything may have changed
        for reader in self.readers.values():  # a cursor of NONE is none yet
            reader[2] = max(reader[2], min(reader[0].load(CURSOR) % NONE, self.at.pos))
        least = min([cursor for _, _, cursor in self.readers.values()], default=self.at.pos)
        given = sum(1 for _ in itertools.takewhile(lambda place: place.pos <= least, self.places)) - 1
        if given <= 0 or self.lease.load(128):
            return self.obey()
        self.segment.publish(NEXT_FLOOR, self.places[given])
        self.light()
        if not self.is_current():
            self.segment.publish(NEXT_FLOOR, self.places[0])
            return self.obey() or True
        self.segment.publish(FLOOR, self.places[given])
        self.places = collections.deque(itertools.islice(self.places, given, None))
        return True
    def publish(self, message):
        stride = self.stride(len(message))
        while not self.is_current() or self.at.off + stride + 8 > self.limit:
            self.make_room(stride) if self.is_current() else self.obey()
        pos, off, seq, size = self.at
        self.put(1 | len(message) << 2, Place(pos + stride, off + stride, seq + 1, size + len(message)), message)
    def make_room(self, stride):
        self.limit = min([off for off, _ in self.live() if off > self.at.off] + [self.capacity])
        if self.at.off + stride + 8 <= self.limit:
            return
        if target := self.hole(stride):
            self.jump(target)
        elif not self.give_up() and self.readers:
            if not self.asked and not self.shrink and self.capacity < self.most:
                self.asked = self.link.send(event="grow", capacity=max(self.capacity + 1, self.base + stride + 8)) or 1
            page, _, cursor = min(self.readers.values(), key=lambda reader: reader[2])
            page.set((DUE, 0), (WANTED, cursor + 1))
            fence()
            if page.load(CURSOR) == cursor and self.is_current():
                page.sleep(SPACE, 0.05)
            page.set((WANTED, 0))
    def idle(self):
        self.obey()
        while self.shrink:
            if self.at.off + 8 > self.capacity and (target := self.hole(self.align)):
                self.jump(target)
            elif max(end for _, end in self.live()) <= self.capacity:
                self.resized(True)
                floor, id, self.shrink = self.places[0].pos, self.shrink["id"], None
                self.link.send(event="shrunk", capacity=self.capacity, id=id, after=floor)
            elif not self.give_up():
                break
        self.segment.set((BEAT, time.monotonic_ns()))

def main(role, path, channel, start="oldest", count="0", how=""):
    if role == "read":
        reader = Reader(path, channel, start, how)
        sys.stdout.buffer.writelines(message + b"\n" for message in itertools.islice(reader.messages(), int(count)))
        reader.give_back()
        reader.page.set((PID, NONE))
        return print(f"{reader.received} received, {reader.lost} lost", file=sys.stderr)
    writer, text, piece = Writer(path, channel), b"", b"-"
    while piece:
        if select.select([0], [], [], 0.05)[0]:
            piece = os.read(0, 65536)
            *messages, text = (text + piece).split(b"\n")
            for message in messages:
                writer.publish(message)
        writer.idle()
    writer.segment.set((WRITER, 0))
main(*sys.argv[1:])
