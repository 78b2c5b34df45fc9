"""Kafka: where jobs come from, where answers go, and what may be committed.

`source` polls, pauses and follows rebalances; `sink` sends and collects acknowledgements; `offsets` knows what may be
committed; `dead_letters` builds their records; `connection` renders the settings for the client and says why a broker
cannot be reached; `topics` checks and creates. The loop's thread alone calls them.
"""
