"""Extend a run with the people of a folder.

python examples/finetune.py RUN FOLDER NEW_RUN [KEY=VALUE ...]
"""

import sys

from facescale.recipes.finetune import finetune, finetune_config

config = finetune_config(sys.argv[1], sys.argv[2], settings=sys.argv[4:])
done = finetune(config, sys.argv[3])
for name, value in done.after.items():
    print(f"{name}: {done.before[name]:.4f} before, {value:.4f} after")
