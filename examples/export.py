"""Export a model as int8 ONNX with everything inside.

python examples/export.py RUN FILE.onnx NAME=PROTOCOL
"""

import sys

from facescale.export.write import export

done = export(
    sys.argv[1], sys.argv[2], precision="int8", unit_output=True, check=[sys.argv[3]], max_drop=0.01
)
print(f"{done.num_bytes / 1e6:.1f} MB, checked on {done.checked_on}")
for one in done.accuracy:
    print(f"{one.protocol}: {one.network:.2%} before, {one.file:.2%} after")
