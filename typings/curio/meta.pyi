import threading

_locals: threading.local
