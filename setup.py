"""Build gapless: generate the registry, vendor OpenBLAS, compile the core in parallel, link the extension.

Environment: CC, GAPLESS_SANITIZE=1 (ASan + UBSan), GAPLESS_BLAS=0 (without OpenBLAS), OPENBLAS_DIR (another
one), GAPLESS_WERROR=1, GAPLESS_BUILD_JOBS. Everything else about the package stands in pyproject.toml.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
GEN = ROOT / "build" / "gen"
sys.path.insert(0, str(CSRC / "tools"))

if sys.platform == "win32":
    sys.exit(
        "gapless builds on Linux and macOS. On Windows use WSL: `wsl --install`, then pip install inside it."
    )

from gen_registry import RegistryError, generate  # noqa: E402
from vendor_openblas import Vendored, vendor  # noqa: E402


def words(name: str) -> list[str]:
    """One list of flags, read by this file and by csrc/Makefile alike."""
    return shlex.split((CSRC / name).read_text(encoding="utf-8"))


def core_sources() -> list[Path]:
    folders = ("core", "kernels", "ops", "layers", "losses", "optim", "augment", "graph", "bind")
    return [path for folder in folders for path in sorted((CSRC / folder).glob("*.c"))]


def replace(source: Path, folder: Path) -> None:
    """Copy a file; one that a running process may have mapped is replaced, never written over."""
    target = folder / source.name
    old, new = (p.stat() if p.exists() else None for p in (target, source))
    if old and new and (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copy2(source, partial)
    partial.replace(target)


class Build(build_ext):
    """Compiles with a dependency file per object, so that a second build compiles only what changed."""

    def build_extension(self, ext: Extension) -> None:
        try:
            generate(CSRC, GEN)
        except RegistryError as error:
            sys.exit(f"gapless: {error}")
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        blas = vendor(target.parent / "_libs")
        print(f"gapless: OpenBLAS {blas.note}")
        self.write_header("blas_symbols.h", blas.header())
        compile_flags, link_flags = self.flags(blas)
        self.write_header("build_flags.h", f'#define GAPLESS_FLAGS "{" ".join(words("flags.txt"))}"\n')
        sources = core_sources() + sorted((GEN / "gen").glob("*.c"))
        objects = self.compile_all(sources, compile_flags)
        self.run_tool([*self.linker(), *map(str, objects), *link_flags, "-o", str(target)])

    def copy_extensions_to_source(self) -> None:
        """For editable installs and --inplace: the private OpenBLAS goes beside the extension too."""
        for ext in self.extensions:
            package = Path(
                self.get_finalized_command("build_py").get_package_dir(ext.name.rpartition(".")[0])
            )
            replace(Path(self.build_lib, self.get_ext_filename(ext.name)), package)
            for built in Path(self.build_lib, *ext.name.split(".")).parent.glob("_libs/*"):
                replace(built, package / "_libs")

    def write_header(self, name: str, text: str) -> None:
        path = GEN / "gen" / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")

    def flags(self, blas: Vendored) -> tuple[list[str], list[str]]:
        import numpy

        flags = words("flags.txt") + words("warnings.txt")
        includes = [CSRC, GEN, Path(sysconfig.get_path("include")), Path(numpy.get_include())]
        # Python's and NumPy's headers are theirs to keep clean: -isystem silences their warnings.
        flags += [
            f"-I{includes[0]}",
            f"-I{includes[1]}",
            "-isystem",
            str(includes[2]),
            "-isystem",
            str(includes[3]),
        ]
        link = ["-lm", "-pthread"]
        if blas.enabled:
            flags.append("-DGAP_WITH_BLAS")
            link = [*blas.link, *link]
        if blas.library is not None:
            link.append("-Wl,-rpath,$ORIGIN/_libs")
        version = self.distribution.get_version()
        flags += [f'-DGAPLESS_VERSION="{version}"', f'-DGAPLESS_FLAGS="{shlex.join(words("flags.txt"))}"']
        if os.environ.get("GAPLESS_SANITIZE") == "1":
            sanitize = [
                "-fsanitize=address,undefined",
                "-fno-sanitize-recover=undefined",
                "-g1",
                "-fno-var-tracking",
                "-O1",
                "-fno-omit-frame-pointer",
            ]
            flags += sanitize
            link += sanitize[:2]
        if os.environ.get("GAPLESS_WERROR") == "1":
            flags.append("-Werror")
        return flags, link

    def compiler_name(self) -> list[str]:
        return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")

    def linker(self) -> list[str]:
        if sys.platform == "darwin":
            return [*self.compiler_name(), "-bundle", "-undefined", "dynamic_lookup"]
        return [*self.compiler_name(), "-shared"]

    def compile_all(self, sources: list[Path], flags: list[str]) -> list[Path]:
        temp = Path(self.build_temp).resolve()
        stamp = "\0".join([*self.compiler_name(), *flags])
        jobs = int(os.environ.get("GAPLESS_BUILD_JOBS") or os.cpu_count() or 1)
        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(lambda source: self.compile_one(source, temp, flags, stamp), sources))

    def compile_one(self, source: Path, temp: Path, flags: list[str], stamp: str) -> Path:
        name = source.relative_to(CSRC if source.is_relative_to(CSRC) else GEN)
        obj = (temp / name).with_suffix(".o")
        obj.parent.mkdir(parents=True, exist_ok=True)
        if not self.is_fresh(source, obj, stamp):
            self.run_tool(
                [
                    *self.compiler_name(),
                    *flags,
                    "-MMD",
                    "-MF",
                    str(obj.with_suffix(".d")),
                    "-c",
                    str(source),
                    "-o",
                    str(obj),
                ]
            )
            obj.with_suffix(".flags").write_text(stamp, encoding="utf-8")
        return obj

    def is_fresh(self, source: Path, obj: Path, stamp: str) -> bool:
        depends, flags = obj.with_suffix(".d"), obj.with_suffix(".flags")
        if self.force or not obj.exists() or not depends.exists() or not flags.exists():
            return False
        if flags.read_text(encoding="utf-8") != stamp:
            return False
        made = obj.stat().st_mtime
        files = depends.read_text(encoding="utf-8").replace("\\\n", " ").split(":", 1)[1].split()
        return all(
            Path(file).exists() and Path(file).stat().st_mtime <= made for file in [str(source), *files]
        )

    def run_tool(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.stderr:
            print(done.stderr, file=sys.stderr)
        if done.returncode != 0:
            sys.exit(f"gapless: this command failed with status {done.returncode}:\n{shlex.join(command)}")


# Listing headers and bodies here puts them into the sdist without a MANIFEST.in.
DEPENDS = [
    str(p.relative_to(ROOT))
    for p in sorted(CSRC.rglob("*"))
    if p.suffix in {".h", ".inc", ".txt", ".py", ".md"} or p.name == "Makefile"
]
SOURCES = [str(p.relative_to(ROOT)) for p in core_sources()]

setup(
    ext_modules=[Extension("gapless._core", sources=SOURCES, depends=DEPENDS)], cmdclass={"build_ext": Build}
)
