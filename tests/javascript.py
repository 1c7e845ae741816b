"""What the tests of the JavaScript hosts need: programs, packages, and a way to run them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "hosts" / "javascript"


def need(*programs: str) -> list[str]:
    """Their paths; skips where one, or the folder's packages, are not there, and says which."""
    found = [shutil.which(program) for program in programs]
    missing = [program for program, path in zip(programs, found, strict=True) if path is None]
    if not (FOLDER / "node_modules").is_dir():
        missing.append("its packages (npm install --ignore-scripts --no-package-lock in examples/hosts/javascript)")
    if missing:
        pytest.skip(f"the JavaScript hosts need {' and '.join(missing)}")
    return [path for path in found if path is not None]


def node(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    (program,) = need("node")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def script(code: str, *arguments: str | Path) -> str:
    """What a module prints that imports from the folder; `arguments` are its process.argv[1:]."""
    done = node("--input-type=module", "-e", code, "--", *arguments, cwd=FOLDER, env={**os.environ, "NODE_NO_WARNINGS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout
