import os

import pytest
from bundle_runs import ROOT

from ci.dockerfile import build, read

IMAGE = """
# of a test
FROM python:3.11-slim
ARG WORD=default
RUN useradd \\
    user
WORKDIR /home/user
COPY --chown=user . .
COPY one.txt two/ /data/
RUN echo "$WORD" > said.txt && echo again >> said.txt
USER user
CMD ["cp", "said.txt", "kept.txt"]
"""


@pytest.fixture
def context(tmp_path):
    """Return a folder with a file, and another in a folder."""
    folder = tmp_path / "context"
    (folder / "two").mkdir(parents=True)
    (folder / "one.txt").write_text("1")
    (folder / "two" / "two.txt").write_text("2")
    return folder


def built(context, text, **build_args):
    image = context.with_name("image")
    build(read(text), context, image, os.environ, build_args)
    return image


def test_what_makes_sense_in_an_image_alone_is_left_out():
    left_out = [str(line) for line in read(IMAGE) if line.is_for_images]
    assert [" ".join(line.split()) for line in left_out] == ["FROM python:3.11-slim", "RUN useradd user", "USER user"]


def test_lines_that_run_are_named_and_so_are_those_left_out(context, capfd):
    built(context, IMAGE)
    said = capfd.readouterr().out
    assert "left out USER user" in said
    assert "runs     WORKDIR /home/user" in said


def test_files_are_copied_to_where_the_image_would_have_them(context):
    image = built(context, IMAGE)
    assert (image / "home" / "user" / "two" / "two.txt").read_text() == "2"
    assert sorted(path.name for path in (image / "data").iterdir()) == ["one.txt", "two.txt"]


def test_the_default_command_runs_last_in_the_working_folder(context):
    assert (built(context, IMAGE) / "home" / "user" / "kept.txt").read_text() == "default\nagain\n"


def test_a_build_argument_outranks_the_default(context):
    assert (built(context, IMAGE, WORD="other") / "home" / "user" / "said.txt").read_text() == "other\nagain\n"


def test_a_build_argument_that_is_not_declared_is_refused(context):
    with pytest.raises(ValueError, match=r"among \['WORD'\], got \['WORDS'\]"):
        built(context, IMAGE, WORDS="other")


def test_a_command_that_fails_ends_the_check(context):
    with pytest.raises(SystemExit, match="RUN exit 3 ends with status 3"):
        built(context, "FROM scratch\nRUN exit 3\nRUN touch reached")
    assert not list(context.parent.rglob("reached"))


@pytest.mark.parametrize("line", ["EXPOSE 80", "VOLUME /data", "RUNN true"])
def test_an_instruction_that_is_not_understood_is_refused(line):
    with pytest.raises(ValueError, match=f"got {line}"):
        read(f"FROM scratch\n{line}")


def test_a_line_of_which_a_part_would_be_left_out_is_refused():
    with pytest.raises(ValueError, match="Expected apt-get in a RUN of its own"):
        read("RUN apt-get update && pip install .")


def test_our_dockerfile_installs_and_runs_a_bundle_as_another_user_than_root():
    lines = read((ROOT / "Dockerfile").read_text())
    assert [line.instruction for line in lines][-2:] == ["USER", "CMD"]
    assert sum("pip install" in line.arguments and not line.is_for_images for line in lines) == 2


def test_an_image_gets_nothing_that_git_ignores():
    ignored, left_out = (
        {line.removeprefix("**/") for line in (ROOT / name).read_text().split()}
        for name in (".gitignore", ".dockerignore")
    )
    assert left_out == ignored | {".git"}
