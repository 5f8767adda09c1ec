"""Who is on a photo?

python examples/search.py MODEL GALLERY PHOTO FAR
"""

import sys

import facescale
from facescale.gallery.gallery import Gallery
from facescale.gallery.photos import embed_photos, face_finder
from facescale.gallery.search import nearest_people

model = facescale.load(sys.argv[1])
(face,), _ = embed_photos(model, [sys.argv[3]], face_finder())
names, templates = Gallery(sys.argv[2]).templates()
((best,),) = nearest_people(face.embedding[None], names, templates, top=1)
print(
    best.name if best.cosine >= model.threshold(float(sys.argv[4])).cosine else "nobody", f"{best.cosine:.3f}"
)
