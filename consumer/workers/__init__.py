"""`loadonce run --workers N`: several consumer processes under one that starts, watches and drains them."""
