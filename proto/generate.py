"""Lint the proto files and generate src/tunesmith_proto from them: `make proto`, or with --check to detect drift.

Generated with the oldest supported grpcio-tools, because generated code refuses runtimes older than its generator.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.rpc import status_pb2

PROTO = Path(__file__).resolve().parent
TARGET = PROTO.parent / "src" / "tunesmith_proto"


def main(argv: list[str]) -> int:
    """0 when all is well; 1 with --check when the committed code differs from what the proto files give."""
    with tempfile.TemporaryDirectory() as folder:
        include, generated = Path(folder, "include"), Path(folder, "generated")
        copy_google_protos(include)
        lint(Path(folder, "lint"), include)
        generate(include, generated)
        if "--check" in argv:
            differing = drift(generated / "tunesmith_proto", TARGET)
            if differing:
                print(f"src/tunesmith_proto differs from proto/: {', '.join(differing)}; run `make proto` and commit")
                return 1
            return 0
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(generated / "tunesmith_proto", TARGET)
    return 0


def copy_google_protos(include: Path) -> None:
    """Lay out google's proto files under the names that other languages import them by.

    googleapis-common-protos ships longrunning/operations.proto as operations_proto.proto.
    """
    google = Path(status_pb2.__file__).parents[1]
    for folder in ("api", "rpc", "longrunning"):
        for source in (google / folder).glob("*.proto"):
            target = include / "google" / folder / source.name.replace("operations_proto.proto", "operations.proto")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def lint(workspace: Path, include: Path) -> None:
    """buf's STANDARD rules, over our files only; google's stand beside them as a second module."""
    shutil.copytree(PROTO / "tunesmith_proto", workspace / "ours" / "tunesmith_proto")
    shutil.copytree(include, workspace / "google_include")
    rules = (PROTO / "buf.yaml").read_text().replace("  - path: .", "  - path: ours\n  - path: google_include")
    (workspace / "buf.yaml").write_text(rules)
    run(["buf", "lint", "ours"], cwd=workspace)


def generate(include: Path, generated: Path) -> None:
    """Messages, gRPC stubs and type stubs."""
    generated.mkdir()
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    outputs = [f"--{kind}_out={generated}" for kind in ("python", "pyi", "grpc_python")]
    run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{include}", *outputs, *sources], cwd=PROTO)
    package = generated / "tunesmith_proto"
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__init__.py").touch()


def run(command: list[str], *, cwd: Path) -> None:
    """Run a tool of this Python's environment; its own message explains a failure."""
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run([str(tool) if tool.exists() else command[0], *command[1:]], cwd=cwd, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} failed")


def drift(fresh: Path, committed: Path) -> list[str]:
    """Relative paths that differ or stand on one side only."""

    def content(root: Path) -> dict[str, bytes]:
        found = (path for path in root.rglob("*.py*") if "__pycache__" not in path.parts)
        return {str(path.relative_to(root)): path.read_bytes() for path in found}

    ours, theirs = content(fresh), content(committed)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
