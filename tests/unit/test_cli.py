from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from etaflow.audio import write_audio
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


def test_a_recording_is_not_written_over(tmp_path: Path) -> None:
    source, reference = tmp_path / "a.wav", tmp_path / "b.wav"
    for path in (source, reference):
        write_audio(path, np.full(8_000, 0.5, np.float32))
    link = tmp_path / "c.wav"
    link.symlink_to(reference)
    content = source.read_bytes()
    for output, problem in (
        (source, "is one of the recordings; write to another file"),
        (link, "is one of the recordings; write to another file"),
    ):
        arguments = [str(source), str(reference), "-o", str(output), "--bundle", str(tmp_path)]
        done = CliRunner().invoke(app, ["convert", *arguments])
        assert (done.exit_code, done.output) == (1, f"error: {output} {problem}\n")
    assert source.read_bytes() == reference.read_bytes() == content


def test_a_folder_as_output_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "out.wav").mkdir()
    arguments = ["a.wav", "b.wav", "-o", str(tmp_path / "out.wav"), "--bundle", str(tmp_path)]
    done = CliRunner().invoke(app, ["convert", *arguments])
    assert done.exit_code == 1
    assert done.output == f"error: {tmp_path / 'out.wav'} is a folder; give the file to write\n"


def test_an_output_that_no_folder_can_hold_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "new" / "out.wav"
    done = CliRunner().invoke(app, ["convert", "a.wav", "b.wav", "-o", str(output)])
    problem = f"{output} cannot be written: {tmp_path / 'file'} is a file, not a folder"
    assert (done.exit_code, done.output) == (1, f"error: {problem}\n")
