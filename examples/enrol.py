"""Make a gallery of the people in a folder.

python examples/enrol.py MODEL GALLERY FOLDER
"""

import sys
from pathlib import Path

import facescale
from facescale.gallery.enrol import enrol
from facescale.gallery.gallery import Gallery
from facescale.gallery.photos import face_finder, people_of

model = facescale.load(sys.argv[1])
gallery = Gallery.create(sys.argv[2], model.fingerprint, model.embedding_size, sys.argv[1])
report = enrol(gallery, model, people_of(Path(sys.argv[3])), find=face_finder())
print(f"{len(report.people)} people with {report.num_photos} photos")
