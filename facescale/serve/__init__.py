"""A small local page and JSON API: compare two photos, search a gallery (needs the extra ``serve``)."""
