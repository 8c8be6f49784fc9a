"""The sessions in docs/search.md run, and print what their comments say."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "search.md").read_text()
SESSIONS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("session", SESSIONS, ids=range(len(SESSIONS)))
def test_a_session_prints_what_its_comments_say(session: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(session, {})

    assert capsys.readouterr().out.splitlines() == re.findall(r"^print.*# (.*)$", session, re.MULTILINE) != []
