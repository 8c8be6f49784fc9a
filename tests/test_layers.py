"""The order of imports: each module may import only from ranks below its own, and nobody imports the mapped folders."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RANKS = [
    {"_version", "errors", "stats"},
    {"optional", "files", "units"},
    {"space", "device"},
    {"spaces"},
    {"plan"},
    {"costs", "additive", "subnet_file"},
    {"budget", "graph"},
    {"latency", "supernet"},
    {"train", "search", "export", "report"},
    {"exporters"},
    {"cli"},
    {"__init__", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
MAPPED = {"exporters", "latency_tables"}


def sources() -> list[tuple[str, Path]]:
    """Every module of ours with the part of the package that it belongs to."""
    found = [(path.relative_to(ROOT / "nas2edge").parts[0].removesuffix(".py"), path)
             for path in (ROOT / "nas2edge").rglob("*.py")]  # fmt: skip
    found += [("exporters", path) for path in (ROOT / "exporters").glob("*.py")]
    return [(part, path) for part, path in found if part != "zoo"]


def imported(path: Path) -> set[str]:
    """Dotted names of ours that a module imports anywhere, functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "nas2edge" else set()
    return {name for name in names if name.startswith("nas2edge.")}


@pytest.mark.parametrize(("part", "path"), sources(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_imports_point_down(part, path):
    for name in imported(path):
        target = name.split(".")[1]
        assert target not in MAPPED, f"{path} imports {name}; exporters and tables are found by name"
        assert target == part or RANK[target] < RANK[part], f"{path} (rank {RANK[part]}) imports {name}"


def test_parts_have_no_circles_inside():
    graph = {path: imported(path) for _, path in sources()}
    module_of = {
        "nas2edge." + ".".join(path.relative_to(ROOT / "nas2edge").with_suffix("").parts): path
        for path in graph
        if path.is_relative_to(ROOT / "nas2edge")
    }
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " > ".join(str(step.relative_to(ROOT)) for step in (*trail, path))
        if path in done:
            return
        for name in top_level(path) & module_of.keys():
            visit(module_of[name], (*trail, path))
        done.add(path)

    for path in graph:
        visit(path, ())


def top_level(path: Path) -> set[str]:
    """Modules of ours that are imported when the module is loaded."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nas2edge"):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names
