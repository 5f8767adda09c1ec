"""A progress bar for commands that know how much there is to do."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, enabled: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar as wide as the terminal, else nothing; print what was done after the block, below the bar.

    Args:
        what: is counted, such as "photos".
        enabled: whether to show it.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from facescale.cli.terminal import for_progress

    console = Console(file=for_progress(sys.stderr))
    if not (enabled and console.is_terminal):
        yield None
        return
    columns = (TextColumn(what), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, refresh_per_second=4, expand=True) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)
