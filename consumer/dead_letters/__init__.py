"""Dead letters to their end: counted, shown, replayed or discarded by an operator; the consumer needs nothing of this.

`letter` is one dead letter, `selection` says which are meant, `survey` counts them and `judge` what may be done with
each. What was handled is a bit per dead letter in `marks`, kept in a compacted topic by `journal` (why there:
decision 0006); `publisher` writes replayed jobs and their marks in one transaction, and `run` goes through a topic
with it. `reader` reads.
"""
