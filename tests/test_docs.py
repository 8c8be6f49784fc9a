"""Documentation: links lead somewhere, and commands have the options that they are shown with."""

import re
import shlex
from pathlib import Path

import click
import pytest

from nas2edge.cli import main

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

    known = {flag for parameter in command.params for flag in parameter.opts} | {"--help"}
    used = {word.split("=")[0] for word in words if word.startswith("--")}
    assert used <= known
