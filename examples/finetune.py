"""Extend a run with the people of a folder.

python examples/finetune.py RUN FOLDER NEW_RUN [KEY=VALUE ...]
"""

import sys
from pathlib import Path

from facescale.distributed import Dist
from facescale.recipes.finetune import finetune, finetune_config

config = finetune_config(Path(sys.argv[1]), sys.argv[2], "extend", 1.0, [], sys.argv[4:])
done = finetune(config, sys.argv[3], Dist(), None)
for name, value in done.after.items():
    print(f"{name}: {done.before[name]:.4f} before, {value:.4f} after")
