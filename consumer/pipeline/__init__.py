"""What a job passes through, in order: decode, bind (its inputs to a model's signature), batch, predict, encode.

Pure: no I/O, no clock of its own, no Kafka, no TensorFlow. What is wrong with a job is a `Failure` that travels with
it.
"""
