"""The examples of the documents run, and the documentation is complete."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Daemon, output, wait_until

import shmd

ROOT = Path(__file__).parents[3]


def example(document: Path) -> str:
    """The first example in Python."""
    return document.read_text().split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("document", ["README.md", "shm-proto/python/README.md"])
def test_the_examples_run(daemon: Daemon, document: str) -> None:
    daemon.start()
    printed = output(daemon.run([sys.executable, "-c", example(ROOT / document)]))
    assert b"hello" in printed and b"0" in printed


def test_the_packages_own_example_runs(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "cam"\n')
    assert shmd.__doc__ is not None
    lines = [line for line in shmd.__doc__.splitlines() if line.startswith("    ")]
    # The reader comes too late for what the writer has published: it is given something to read.
    program = daemon.run([sys.executable, "-u", "-c", "\n".join(line[4:] for line in lines)])
    wait_until("the example reads", lambda: program.poll() is not None or bool(shmd.stat("cam")["readers"]))
    writer = shmd.Writer("cam")
    writer.publish(b"again")
    assert program.stdout is not None
    assert program.stdout.readline() == b"1 0 b'again'\n"
    daemon.stop()
    assert program.communicate()[1] == b"" and program.returncode == 0
    writer.close()


def test_everything_has_documentation() -> None:
    for name in shmd.__all__:
        thing = getattr(shmd, name)
        if name == "__version__":
            continue
        assert thing.__doc__, name
        if isinstance(thing, type):
            for member, value in vars(thing).items():
                if not member.startswith("_") and callable(value):
                    assert value.__doc__, f"{name}.{member}"


def test_the_type_checker_finds_wrong_use(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import shmd\n"
        "reader: shmd.Reader = shmd.Reader('cam', start='oldest')\n"
        "count: int = reader.recv().seq\n"
        "wrong: str = reader.recv().seq\n"
        "shmd.Reader(start='sometimes')\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout
    assert found.count("error:") == 2 and "program.py:4" in found and "program.py:5" in found
