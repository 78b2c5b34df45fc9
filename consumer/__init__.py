"""loadonce: serve TensorFlow models from a Kafka topic, every model loaded once, beside the loop and never in it."""
