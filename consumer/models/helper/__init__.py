"""A process of its own that opens strangers' files: what crashes, hangs or eats memory does so there.

`process` is the consumer's side, `worker` the helper's, `wire` what they say to each other.
"""
