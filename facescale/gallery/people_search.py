"""Search of a gallery that may change meanwhile: exact, or by an index where the gallery is large."""

import importlib.util
import threading

import numpy as np

from facescale.gallery.codes import require_extra
from facescale.gallery.database import State
from facescale.gallery.gallery import Embeddings, Gallery
from facescale.gallery.index import GalleryIndex
from facescale.gallery.index_file import path_of, write_index
from facescale.gallery.search import Match, nearest_people

# Q queries, d embedding size

LARGE = 100_000  # people from which an index pays: to read the templates of so many takes seconds


class PeopleSearch:
    """Finds people in a gallery; changes of the gallery are followed.

    Args:
        gallery: where to search.
        use_index: None: in a gallery of 100,000 people or more. An index that is missing, damaged or
            of another state of the gallery is made first.

    Attributes:
        note: how is searched, where the user may want to know.

    Raises:
        ValueError: nobody is enrolled, or an index is asked for and faiss is missing.
    """

    def __init__(self, gallery: Gallery, use_index: bool | None = None) -> None:
        self.note = ""
        self._gallery, self._lock = gallery, threading.Lock()
        self._state: State | None = None
        self._templates: Embeddings = np.empty((0, gallery.embedding_size), np.float32)
        self._names: list[str] = []
        self._index: GalleryIndex | None = None
        if self._wants_index(use_index):
            try:
                self._open_index()
            except (ValueError, OSError) as error:
                if use_index:
                    raise
                self.note = f"searched exactly, without an index: {error}"
        if self._index is None:
            self._read()

    def search(self, query_QD: Embeddings, top: int = 5) -> list[list[Match]]:
        """The ``top`` people of highest cosine for each face, best first; ties by order of enrolment.

        Raises:
            ValueError: embeddings of another size, or nobody is enrolled any more.
        """
        with self._lock:
            if self._index is not None and not self._index.follow():
                self._open_index()
            elif self._index is None and self._is_changed():
                self._read()
            index, names, templates = self._index, self._names, self._templates
        return index.search(query_QD, top) if index else nearest_people(query_QD, names, templates, top)

    def _is_changed(self) -> bool:
        return self._state is None or self._gallery.state() != self._state

    def _wants_index(self, use_index: bool | None) -> bool:
        if use_index is not None:
            return use_index
        num_people = self._gallery.num_people()
        if num_people < LARGE:
            return False
        if importlib.util.find_spec("faiss") is None:
            self.note = (
                f"searched {num_people:,} people exactly; an index is faster: pip install 'facescale[index]'"
            )
            return False
        return True

    def _open_index(self) -> None:
        require_extra()
        path = path_of(self._gallery.path)
        why = f"there is no index at '{path}'"
        if path.exists():
            try:
                self._index = GalleryIndex(self._gallery)
                return
            except ValueError as error:
                why = str(error)
        write_index(self._gallery)
        self._index = GalleryIndex(self._gallery)
        self.note = f"an index of {len(self._index):,} people was made, since {why}"

    def _read(self) -> None:
        state = self._gallery.state()  # before the people: a change in between is read once more
        self._names, self._templates = self._gallery.templates()
        if not self._names:
            raise ValueError(f"the gallery '{self._gallery.path}' is empty; add people with: facescale enrol")
        self._state = state
