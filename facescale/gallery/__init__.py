"""Known people: enrol them, search for them, compare two faces."""

from facescale.gallery.gallery import Face, Gallery, Person
from facescale.gallery.search import Match, nearest_people, too_alike

__all__ = ["Face", "Gallery", "Match", "Person", "nearest_people", "too_alike"]
