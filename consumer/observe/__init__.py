"""What is seen from outside: logs, and the HTTP endpoint that says whether the process lives and is ready.

Told by the other parts, never asked by them.
"""
