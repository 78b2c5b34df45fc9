"""`loadonce demo`: the whole system on real data. A broker, three freshly trained models in the three formats, two
consumer processes, every held-out sample as a job, and a report in which every number has to add up."""
