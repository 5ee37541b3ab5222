"""SCPI without sockets: a message in, an answer out."""

from simulator.scpi.errors import ScpiError as ScpiError
from simulator.scpi.interpreter import Interpreter as Interpreter
from simulator.scpi.parameters import number as number
from simulator.scpi.parameters import whole as whole
