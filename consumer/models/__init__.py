"""Models: the store they are found in, their formats, loading beside the loop, the cache, and predicting.

`Serving` is the one thing the loop talks to. A model's name never becomes a path: names are looked up among those that
a look at the store (`store.scan`) has found.
"""
