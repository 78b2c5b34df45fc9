"""What loadonce gives, measured: each program runs what it compares in turn, in one run, and prints ratios.

Figures of different runs, or machines, are not to be compared; `--json` prints everything that was measured.
"""
