"""A daemon of a test's own: its directory, its object names, and what is left of them."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE = 60.0
"""How long a test waits for something that should come."""

# A shell in the background starts programs that ignore the signal, and so would the programs of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

BIN = Path(os.environ.get("SHMD_TEST_BIN", Path(__file__).parents[3] / "target" / "debug"))

_numbers = itertools.count()


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Waits for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s until {what}"
        time.sleep(0.005)


class Daemon:
    """A daemon that answers, and the programs that talk to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run_dir = directory / "run"
        self.prefix = f"shmd-py-{os.getpid()}-{next(_numbers)}"
        self._log = directory / "shmd.log"
        self._programs: list[subprocess.Popen[bytes]] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: str = "") -> None:
        file = self.directory / "shmd.toml"
        if config or not file.exists():
            file.write_text(config or '[[channel]]\nname = "main"\n')
        command: list[str | Path] = [BIN / "shmd", "--config", file, "--runtime-dir", self.run_dir]
        command += ["--prefix", self.prefix]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        wait_until("the daemon answers", self._answers)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log()
        return subprocess.run([BIN / "shmctl", "list"], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0

    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        """Ends the daemon as its operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the daemon at once. Its objects stay."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None

    def shmctl(self, *args: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Starts shmctl."""
        return self.run([str(BIN / "shmctl"), *args], stdin=stdin)

    def run(self, command: list[str], stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Starts a program that ends with the test at the latest."""
        program = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._programs.append(program)
        return program

    def end(self) -> None:
        for program in self._programs:
            if program.poll() is None:
                program.kill()
            program.communicate()
        # A daemon that was killed left its objects, and the next one removes them.
        if self._process is None and self._left():
            self.start()
        self.stop()
        assert not self._left(), "left in /dev/shm"

    def _left(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"{self.prefix}*"))


def output(program: "subprocess.Popen[bytes]", data: bytes | None = None) -> bytes:
    """What a program has printed, after it has ended well."""
    out, err = program.communicate(data, PATIENCE)
    assert program.returncode == 0, err.decode()
    return out


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon that the test starts, which this process and its children find."""
    for name in [name for name in os.environ if name.startswith("SHMD_") and name != "SHMD_TEST_BIN"]:
        monkeypatch.delenv(name)
    daemon = Daemon(tmp_path)
    monkeypatch.setenv("SHMD_RUNTIME_DIR", str(daemon.run_dir))
    try:
        yield daemon
    finally:
        daemon.end()
