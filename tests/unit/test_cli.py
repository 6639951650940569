from pathlib import Path

from typer.testing import CliRunner

from etaflow.cli import app


def test_errors_are_one_line_and_leave_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    output = tmp_path / "out.wav"
    done = CliRunner().invoke(
        app,
        [
            "convert",
            str(tmp_path / "empty.wav"),
            str(tmp_path / "x.wav"),
            "-o",
            str(output),
            "--bundle",
            str(tmp_path),
        ],
    )
    assert done.exit_code == 1
    assert done.output == f"error: {tmp_path / 'empty.wav'}: empty file\n"
    assert not output.exists()
