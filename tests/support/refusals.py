"""What a command says when it refuses."""

import pytest

from lit_gans.cli import main


def refused(capsys, *words):
    """The one message of a command that leaves with code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert "Traceback" not in err + out
    assert "usage" not in out
    (message,) = (line for line in err.splitlines() if line.startswith("lit_gans: "))
    assert len(message) < 600
    return message
