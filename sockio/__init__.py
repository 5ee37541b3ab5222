"""Talk to laboratory instruments over TCP, from whatever concurrency model a program uses.

This file and ``common`` import on Python 2.7 too; the flavours are imported on demand, so that a program pays
for (and needs) only the one that it uses.
"""

from importlib import import_module

try:
    import typing as _t  # noqa: F401  (names in the type comments)
except ImportError:  # Python 2.7
    pass

__version__ = "1.0.0.dev0"

_FLAVOURS = {
    "async": "aio",
    "asyncio": "aio",
    "futures": "futures",
    "sync": "sio",
    "syncio": "sio",
    "curio": "curio",
    "trio": "trio",
    "py2": "py2",
}


def socket_for_url(url, *args, **kwargs):
    # type: (str, _t.Any, _t.Any) -> _t.Any
    """Return a ``TCP`` object for a URL.

    Args:
        url: ``tcp://host:port``
        *args: further arguments of the flavour's ``TCP``
        **kwargs: likewise; and ``concurrency``, which flavour: ``async`` (default) or ``asyncio``, ``sync`` or
            ``syncio``, ``futures``, ``trio``, ``curio``, ``py2``

    Raises:
        ValueError: unknown concurrency, another scheme than ``tcp``, or a URL without host or port
    """
    concurrency = kwargs.pop("concurrency", "async")
    if concurrency not in _FLAVOURS:
        raise ValueError(
            "unsupported concurrency {!r}: use one of {}".format(concurrency, ", ".join(sorted(_FLAVOURS)))
        )
    flavour = import_module("sockio." + _FLAVOURS[concurrency])
    return flavour.socket_for_url(url, *args, **kwargs)
