"""Do two photos show the same person?

python examples/verify.py MODEL A.jpg B.jpg FAR
"""

import sys

import facescale
from facescale.gallery.photos import embed_photos, face_finder

model = facescale.load(sys.argv[1])
(a, b), _ = embed_photos(model, sys.argv[2:4], face_finder())
cosine = float(a.embedding @ b.embedding)
threshold = model.threshold(float(sys.argv[4])).cosine
print("same person" if cosine >= threshold else "different people", f"{cosine:.3f}")
