"""Environments of the peers that need one of their own: what they are made of, and the command that makes them.

    python -m stapes_bench.environments DIR [NAME ...]

makes DIR/openvino, DIR/optimum and DIR/transformersjs (or those named); `stapes bench --environments DIR` finds them. It runs pip and npm
as they are set up on this machine, and nothing of theirs but their own installs: no script of a package.
"""

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

TORCH = "torch==2.13.0"
"""As in constraints.txt. A build for the CPU alone is a fifth of the size: where pip can have one, name it in PIP_CONSTRAINT."""

PIP: dict[str, tuple[str, ...]] = {
    "openvino": ("openvino==2026.4.1", "nncf==3.4.0", "transformers==5.23.0", TORCH, "numpy", "packaging"),
    "optimum": ("optimum-onnx[onnxruntime]==0.1.0", "transformers<4.58", TORCH, "numpy", "packaging"),
}
NPM: dict[str, tuple[str, ...]] = {"transformersjs": ("@huggingface/transformers@4.3.1",)}


def make(name: str, folder: Path) -> None:
    """The environment `name` in `folder`/`name`; RuntimeError where its installer fails."""
    place = folder / name
    if name in PIP:
        venv.create(place, with_pip=True)
        _run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *PIP[name]], folder)
        return
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"{name} needs node and npm, which are not installed")
    place.mkdir(parents=True, exist_ok=True)
    _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place), *NPM[name]], place)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stapes_bench.environments", description="Make the environments of the peers.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where; each in a folder of its name")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join([*PIP, *NPM])} (default: all)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or [*PIP, *NPM]:
        if name not in PIP and name not in NPM:
            parser.error(f"no environment {name}: {', '.join([*PIP, *NPM])}")
        print(f"{name}: into {options.folder / name}", file=sys.stderr)
        try:
            make(name, options.folder.absolute())
        except (RuntimeError, OSError) as error:
            print(f"stapes_bench: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
