"""`python -m simulator`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from simulator import Instrument
from simulator.__main__ import main
from simulator.multimeter import IDENTITY

COMMAND = [sys.executable, "-X", "dev", "-W", "error", "-m", "simulator"]
LINE = r"dmm listening on (\S+):(\d+) \(TCPIP::(\S+)::(\d+)::SOCKET\)\n"


def identify(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), timeout=10) as client:
        client.sendall(b"*IDN?\n")
        return client.recv(100)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = re.fullmatch(LINE, process.stdout.readline())
        assert line is not None
        assert identify(line[1], int(line[2])) == IDENTITY + b"\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "", "")


class Output:
    """Stands in for `sys.stdout`: ends the program when it has said where it listens."""

    def __init__(self) -> None:
        self.text = ""
        self.identity = b""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        line = re.fullmatch(LINE, self.text)
        assert line is not None
        self.identity = identify(line[1].strip("[]"), int(line[2]))
        threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM)).start()


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_it_prints_one_line_and_serves_until_a_signal(host: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output()
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", output)
        assert main(["--host", host, "--port", "0"]) == 0
    line = re.fullmatch(LINE, output.text)
    assert line is not None
    assert (line[1], line[3]) == (shown, shown)
    assert line[2] == line[4]
    assert output.identity == IDENTITY + b"\n"
    assert signal.getsignal(signal.SIGTERM) == handler


def test_the_default_is_port_5025_of_this_machine() -> None:
    options = subprocess.check_output([*COMMAND, "--help"], text=True)
    assert "127.0.0.1" in options
    assert "5025" in options


def test_a_port_in_use_is_one_line_with_the_remedy(dmm: Instrument, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", str(dmm.port)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(
        rf"python -m simulator: cannot listen on 127.0.0.1 port {dmm.port} \(.*\): choose another port, or 0 .*\n",
        captured.err,
    )


@pytest.mark.parametrize("port", ["x", "-1", "65536", "5025.0", ""])
def test_a_bad_port_is_one_line(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([f"--port={port}"])
    assert caught.value.code == 2
    assert re.fullmatch(rf"python -m simulator: .*'{port}' is not a port: give a number .*\n", capsys.readouterr().err)


def test_a_host_that_is_nowhere_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "no such host"]) == 2
    assert re.fullmatch(r"python -m simulator: host 'no such host' cannot be resolved .*\n", capsys.readouterr().err)
