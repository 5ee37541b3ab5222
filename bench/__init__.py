"""What a call costs: request-reply, line streams, bulk reads, a thousand instruments, memory.

``python -m bench`` runs it all. Start reading at ``group.py``, which says what a benchmark is made of; ``reqrep.py``,
``lines.py``, ``bulk.py``, ``swarm.py`` and ``memory.py`` are the client programs, ``runner.py`` runs and sums them up.
"""
