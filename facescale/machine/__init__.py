"""The machine that runs facescale: its free cores, how threads wait, how memory is kept.

Nothing here happens at import. ``tune()`` is what every command calls first; a program that uses facescale as
a library calls it, too, if it wants the same (before it imports torch).
"""

from facescale.machine.settings import Setting, tune

__all__ = ["Setting", "tune"]
