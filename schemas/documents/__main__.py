"""`python -m schemas.documents [--check]`: write the documents, or say which of them have drifted from the code."""

import argparse
import sys

from schemas.documents import FOLDER, drifted, write


def main() -> int:
    """0 where all is well; 1 where `--check` finds a document that the code would write differently."""
    parser = argparse.ArgumentParser(prog="python -m schemas.documents", description="JSON Schema and AsyncAPI")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a document has drifted")
    if not parser.parse_args().check:
        write(FOLDER)
        return 0
    names = drifted(FOLDER)
    for name in names:
        sys.stderr.write(f"schemas/documents/{name} is not what the code says; run: python -m schemas.documents\n")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
