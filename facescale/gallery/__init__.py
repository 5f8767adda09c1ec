"""Known people: enrol them, search for them, compare two faces."""

from facescale.gallery.gallery import Face, Gallery, Person
from facescale.gallery.people_search import PeopleSearch
from facescale.gallery.search import Match, nearest_people, too_alike

__all__ = ["Face", "Gallery", "Match", "PeopleSearch", "Person", "nearest_people", "too_alike"]
