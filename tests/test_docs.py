"""Documentation: links lead somewhere, and commands have the options that they are shown with."""

import doctest
import re
import shlex
from pathlib import Path

import click
import pytest

import nas2edge.spaces.published
import nas2edge.units
from nas2edge.cli import main
from nas2edge.cli._main import _COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "nas2edge").rglob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
_BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text()):
            lines = block.replace("\\\n", " ").splitlines()
            found += [
                (page.name, line.split("nas2edge ", 1)[1].split("#")[0])
                for line in lines
                if re.match(r"(\$ )?(torchrun .*-m )?nas2edge [a-z]", line)
            ]
    return found


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_pages_that_everybody_looks_for_exist(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_stands_in_the_readme(name):
    assert f"nas2edge {name}" in (ROOT / "README.md").read_text()


def test_the_session_in_the_readme_prints_what_its_comment_says(capsys):
    (session,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

    exec(session, {})

    assert capsys.readouterr().out.splitlines() == re.findall(r"^print.*# (.*)$", session, re.MULTILINE) != []


@pytest.mark.parametrize("module", [nas2edge, nas2edge.units, nas2edge.spaces, nas2edge.spaces.published], ids=str)
def test_sessions_in_docstrings_print_what_they_say(module):
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = [link for link in _LINK.findall(page.read_text()) if "://" not in link]

    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_have_the_options_that_they_are_shown_with(page, line):
    words = shlex.split(line)
    command = main.get_command(click.Context(main), words[0])
    assert command is not None, words[0]
    while isinstance(command, click.Group):
        words = words[1:]
        command = command.commands[words[0]]

    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    used = {word.split("=")[0] for word in words if word.startswith("--")}
    assert used <= known
