"""The order of imports: each module may import only from ranks below its own, and nobody imports the mapped folders."""

import ast
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RANKS = [
    {"_version", "errors", "stats", "zoo"},
    {"optional", "files", "units", "cores"},
    {"space", "device"},
    {"spaces"},
    {"plan"},
    {"pieces"},
    {"costs", "additive", "peak", "subnet_file"},
    {"budget", "graph", "runtimes"},
    {"latency", "supernet"},
    {"train", "search", "export", "bench", "report"},
    {"exporters"},
    {"cli"},
    {"__init__", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
MAPPED = {"exporters", "latency_tables"}


FILES = sorted([*(ROOT / "nas2edge").rglob("*.py"), *(ROOT / "exporters").glob("*.py")])


def module_name(path: Path) -> str:
    """nas2edge.search for nas2edge/search/__init__.py, nas2edge.exporters.onnx for exporters/onnx.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "nas2edge" else ("nas2edge", *parts)).removesuffix(".__init__")


def part_of(path: Path) -> str:
    return (f"{module_name(path)}.__init__").split(".")[1]


def imported(path: Path, nodes: Iterable[ast.AST]) -> set[str]:
    """Dotted names of ours in import statements, and of what is taken from them; relative ones in full."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module_name(path).split(".") + ["__init__"] * (path.name == "__init__.py")
            base = [*(package[: -node.level] if node.level else []), *([node.module] if node.module else [])]
            names |= {".".join([*base, alias.name]) for alias in node.names} | ({".".join(base)} - {"nas2edge"})
    return {name for name in names if name.split(".")[0] in {"nas2edge", *MAPPED}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    """Those inside functions too."""
    part = part_of(path)
    assert part in RANK, f"{part} has no rank; give it one in RANKS"
    for name in imported(path, ast.walk(ast.parse(path.read_text()))):
        target = name.split(".")[1] if name.startswith("nas2edge.") else name
        if target == part:
            continue
        assert target not in MAPPED, f"{path} imports {name}; exporters and tables are found by name"
        assert target in RANK, f"{path} imports {name}; import from the module that defines it"
        assert RANK[target] < RANK[part], f"{path} (rank {RANK[part]}) imports {name} (rank {RANK[target]})"


def test_no_modules_import_each_other_in_a_circle():
    """Counted when a module is loaded: imports inside functions and for type checking do not."""
    path_of = {module_name(path): path for path in FILES}
    imports = {
        name: imported(path, ast.parse(path.read_text()).body) & path_of.keys() - {name}
        for name, path in path_of.items()
    }

    TopologicalSorter(imports).prepare()  # raises CycleError, which names the modules
