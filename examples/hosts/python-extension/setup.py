"""Builds the extension over ../c/stapes.h: ORT=DIR pip install .

ORT: an SDK of ONNX Runtime, or the folder onnxruntime/capi of its Python wheel. The library is copied beside the extension, so that what is
installed needs nothing else.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
NAME = "libonnxruntime.so.1"  # as the library calls itself, and as the extension looks for it


def library() -> Path:
    ort = Path(os.environ.get("ORT", ""))
    found = [path for pattern in ("lib/libonnxruntime.so", "lib64/libonnxruntime.so", "libonnxruntime.so*") for path in ort.glob(pattern)]
    if "ORT" not in os.environ or not found:
        sys.exit(f"no libonnxruntime.so in ORT={ort}: name an SDK's folder, or onnxruntime/capi of the Python wheel")
    return found[0].resolve()


class WithLibrary(build_ext):
    """Links with a copy of the library in the package."""

    def build_extension(self, extension: Extension) -> None:
        package = Path(self.get_ext_fullpath(extension.name)).parent
        package.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library(), package / NAME)
        extension.extra_objects = [str(package / NAME)]
        super().build_extension(extension)


setup(
    ext_modules=[
        Extension(
            "stapes_host._model",
            ["_model.c"],
            include_dirs=[str(HERE.parent / "c"), os.path.join(os.environ.get("ORT", ""), "include")],
            depends=[str(HERE.parent / "c" / name) for name in ("stapes.h", "stapes_ort.h")],
            extra_compile_args=["-std=c11"],
            extra_link_args=["-Wl,-rpath,$ORIGIN", "-lm"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    cmdclass={"build_ext": WithLibrary},
)
