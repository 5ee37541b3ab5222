"""The interpreter: splits a message into commands, finds who executes each, and joins the answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from simulator.device import Answer, Piece, Raw, Wait, pieces
from simulator.scpi.errors import ErrorQueue, ScpiError
from simulator.scpi.header import compiled

Handler = Callable[[bytes], Answer]

_COMMANDS = re.compile(rb"""(?:"[^"]*"|'[^']*'|[^;])+""")


class Interpreter:
    """Executes SCPI messages; a `simulator.device.Device`.

    Args:
        handlers: by header as manuals write it (`MEASure:VOLTage[:DC]?`), what takes the parameters and answers. It may
            raise `ScpiError`, which goes to the error queue.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self.errors: ErrorQueue = ErrorQueue()
        common: dict[str, Handler] = {
            "*CLS": lambda _: self.errors.clear(),
            "*OPC?": lambda _: b"1",
            "SYSTem:ERRor[:NEXT]?": lambda _: self.errors.next(),
        }
        self._handlers = [(compiled(header), handler) for header, handler in {**common, **handlers}.items()]

    def execute(self, message: bytes) -> Iterator[Piece]:
        """Execute the commands of a message one after the other.

        The first answer of each joins those before it in one message, separated by `;`. Further pieces of the same
        command (a stream) are messages of their own.
        """
        joined: list[bytes] = []
        for handler, parameters in self._commands(message):
            first = True
            for piece in self._run(handler, parameters):
                if isinstance(piece, Wait):
                    yield piece
                    continue
                if joined and (isinstance(piece, Raw) or not first):
                    yield b";".join(joined)
                    joined.clear()
                if isinstance(piece, Raw):
                    yield piece
                else:
                    joined.append(piece)
                first = False
        if joined:
            yield b";".join(joined)

    def _commands(self, message: bytes) -> Iterator[tuple[Handler, bytes]]:
        """Each command's handler and parameters. A header without leading `:` continues where the last one was."""
        path = b""
        for command in _COMMANDS.findall(message):
            header, parameters = (*command.split(maxsplit=1), b"", b"")[:2]
            if not header:
                continue
            if not header.startswith(b"*"):
                header = header if header.startswith(b":") else path + b":" + header
                path = header.rpartition(b":")[0]
            for pattern, handler in self._handlers:
                if pattern.fullmatch(header):
                    yield handler, parameters.strip()
                    break
            else:
                self.errors.add(ScpiError(-113, command.split()[0]))

    def _run(self, handler: Handler, parameters: bytes) -> Iterator[Piece]:
        try:
            yield from pieces(handler(parameters))
        except ScpiError as error:
            self.errors.add(error)
