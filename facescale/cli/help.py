"""The top-level help: commands in groups, by what they are for."""

from typing import Any

from typer.core import TyperGroup

GROUPS = {
    "Start": ("demo", "doctor"),
    "Data": ("prepare", "align", "inspect", "pairs", "clean", "convert-data"),
    "Config": ("recipes", "config", "list", "plan", "import-config"),
    "Training": ("train", "finetune", "track"),
    "Evaluation": ("evaluate", "report", "compare"),
    "Use": ("verify", "enrol", "search", "gallery", "serve", "embed"),
    "Files for and from other programs": ("export", "convert"),
    "Speed and memory": ("bench",),
}


class GroupedCommands(TyperGroup):
    """Lists the commands by ``GROUPS``."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of the groups."""
        return [name for names in GROUPS.values() for name in names]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group."""
        width = max(map(len, self.commands))
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (
                            name.ljust(width),
                            self.commands[name].get_short_help_str(formatter.width - 6 - width),
                        )
                        for name in names
                    ]
                )
