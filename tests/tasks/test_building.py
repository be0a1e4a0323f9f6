"""The scripts that build text from packages of Debian, on packages that the test makes."""

import gzip
import importlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from switch_jax.tasks.english import DATA

LONG = "This sentence of a manual has more than the sixty characters that a paragraph needs. "


def tar(files: dict[str, str | bytes], compression: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            content = content.encode() if isinstance(content, str) else content
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def write_package(path: Path, files: dict[str, str | bytes]) -> None:
    """A .deb of files: an ar archive with a data.tar.gz, behind a member of odd length."""
    members = (("control.tar", b"odd"), ("data.tar.gz", tar(files, "gz")))
    archive = b"!<arch>\n"
    for name, content in members:
        archive += f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode()
        archive += content + b"\n" * (len(content) % 2)
    path.write_bytes(archive)


def page(*paragraphs: str) -> str:
    return "<html><nav>Menu</nav>" + "".join(f"<p>{p}</p>" for p in paragraphs) + "</html>"


def build(script: str, packages: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DATA / script, packages, "--output", output]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    """What is built from one page in four languages, and thirty pages in German."""
    packages = tmp_path_factory.mktemp("packages")
    folder = "./usr/share/libreoffice/help"
    write_package(
        packages / "libreoffice-help-de_25.deb",
        {f"{folder}/de/text/{i}.html": page(f"Seite {i}. {LONG}") for i in range(30)},
    )
    write_package(
        packages / "libreoffice-help-en-us_25.deb",
        {f"{folder}/en-US/text/{i}.html": page(f"Page {i}. {LONG}") for i in range(30)},
    )
    write_package(
        packages / "gnome-user-docs_48.deb",
        {
            "./usr/share/help/C/gnome/a.page": page(f"In English. {LONG}", "Too short."),
            "./usr/share/help/pt_BR/gnome/a.page": page(
                f"Em inglês. {LONG}", f"In English. {LONG}"
            ),
            "./usr/share/help/sr@latin/gnome/a.page": page(f"Na engleskom. {LONG}"),
            "./usr/share/help/as/gnome/a.page": page(f"No language of mC4. {LONG}"),
        },
    )
    handbook = "./usr/share/doc/debian-handbook/html"
    write_package(
        packages / "debian-handbook_11.deb",
        {
            f"{handbook}/zh-CN/a.html": page(
                "這本手冊的一個段落,有超過二十個字符,所以它留在文本中。", "短。"
            )
        },
    )
    guide = "./usr/share/doc/installation-guide-amd64"
    write_package(
        packages / "installation-guide-amd64_1.deb",
        {f"{guide}/he/a.html": page(f"Hebrew, which is iw in mC4. {LONG}")},
    )
    output = packages / "built"
    result = build("build_large_multilingual.py", packages, output)
    assert result.returncode == 0, result.stderr
    return packages, output


def both_splits(output: Path, code: str) -> str:
    return "\n".join(
        line
        for split in ("train", "validation")
        for line in lines(output / f"{code}.{split}.txt.gz")
    )


def test_each_language_of_udhr_has_its_declaration_in_both_splits(multilingual):
    _, output = multilingual
    assert len(list(output.glob("*.train.txt.gz"))) == 100
    assert "Artigo 1" in both_splits(output, "pt")
    assert any("Article 28" in line for line in lines(output / "en.validation.txt.gz"))


def test_pages_are_found_under_the_codes_of_mc4(multilingual):
    _, output = multilingual
    assert "In English." in both_splits(output, "en")
    assert "Em inglês." in both_splits(output, "pt")
    assert "iw in mC4" in both_splits(output, "iw")
    assert "這本手冊" in both_splits(output, "zh")
    assert "Na engleskom" not in both_splits(output, "sr")


def test_what_is_short_or_was_not_translated_is_left_out(multilingual):
    _, output = multilingual
    assert "In English." not in both_splits(output, "pt")
    assert "Too short" not in both_splits(output, "en") and "Menu" not in both_splits(output, "en")
    assert "這本手冊" in both_splits(output, "zh") and "短。" not in both_splits(output, "zh")


def test_the_translations_of_a_page_are_in_the_same_split(multilingual):
    _, output = multilingual

    def held_out(code: str, word: str) -> set[int]:
        text = "\n".join(lines(output / f"{code}.validation.txt.gz"))
        return {i for i in range(30) if f"{word} {i}. " in text}

    pages = held_out("de", "Seite")
    assert pages == held_out("en", "Page")
    assert 0 < len(pages) < 10  # about one in twenty


def test_a_package_that_is_missing_is_named(multilingual, tmp_path):
    packages, _ = multilingual
    for package in packages.glob("*.deb"):
        if "handbook" not in package.name:
            (tmp_path / package.name).write_bytes(package.read_bytes())
    result = build("build_large_multilingual.py", tmp_path, tmp_path / "built")
    assert result.returncode == 1
    assert "has no debian-handbook*.deb" in result.stderr


def test_a_package_without_the_files_that_are_read_is_an_error(tmp_path):
    write_package(tmp_path / "anarchism_15.deb", {"./usr/share/elsewhere/a.html": page(LONG)})
    result = build("build_large_english.py", tmp_path, tmp_path / "built")
    assert result.returncode == 1
    assert "anarchism_15.deb has no ./usr/share/doc/anarchism/*.html" in result.stderr


def sign_of(text: str) -> str:
    """The file that the Makefile takes as the sign that all of a text is built."""
    rules = (Path(__file__).parents[2] / "Makefile").read_text()
    (name,) = re.findall(rf"^runs/{text}/(\S+): \| setup", rules, re.M)
    return name


@pytest.mark.parametrize("before", ["nothing", "the files of an earlier build"])
def test_a_text_whose_writing_fails_does_not_look_complete(multilingual, tmp_path, before):
    packages, built = multilingual
    sign = sign_of("large_multilingual")
    if before != "nothing":
        shutil.copytree(built, tmp_path, dirs_exist_ok=True)
        assert (tmp_path / sign).exists()
        (tmp_path / "pt.train.txt.gz").unlink()
    (tmp_path / "pt.train.txt.gz").mkdir()  # it cannot become a file
    assert build("build_large_multilingual.py", packages, tmp_path).returncode == 1
    assert (tmp_path / "zu.train.txt.gz").exists() and not (tmp_path / sign).exists()


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(DATA)
    write_lines = importlib.import_module("build_english").write_lines
    for name in ("lines.txt", "lines.txt.gz"):
        with pytest.raises(UnicodeEncodeError):
            write_lines(tmp_path / name, ["good"] * 10000 + ["\ud800"], "lines")
        assert not (tmp_path / name).exists()
        write_lines(tmp_path / name, ["gut", "größer"], "lines")
    assert (tmp_path / "lines.txt").read_text(encoding="utf-8") == "gut\ngrößer\n"
    assert lines(tmp_path / "lines.txt.gz") == ["gut", "größer"]
    assert f"{tmp_path}/lines.txt: 2 lines, 9 characters, 13 bytes\n" in capsys.readouterr().out


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """The passages by split that are built from a package of sources."""
    packages = tmp_path_factory.mktemp("sources")
    function = "static int probe(struct device *dev)\n{\n\tif (!dev)\n\t\treturn -EINVAL;\n"
    files: dict[str, str | bytes] = {
        f"linux/drivers/d{i}/{name}.c": f"/* {name} */\n{function}\treturn {i};\n}}\n"
        for i in range(60)
        for name in ("first", "second")
    }
    files["linux/lib/a.c"] = (
        "// SPDX-License-Identifier: GPL-2.0\n/*\n * Copyright (C) by the author\n */\n"
        f"/* Kept, café. */\n{function}}}\n"
    )
    files["linux/lib/copy.h"] = files["linux/lib/a.c"]
    files["linux/lib/long.c"] = "\tcall(argument);\n" * 20 + "\tanother(argument);\n" * 40
    files["linux/lib/latin1.c"] = f"/* caf\xe9 */ {function}".encode("latin-1")
    files["linux/drivers/gpu/drm/amd/include/regs.h"] = "#define REGISTER 0x1\n" * 10
    files["linux/README"] = LONG
    sources = {"./usr/src/linux.tar.xz": tar(files, "xz"), "./usr/share/doc/copyright": LONG}
    write_package(packages / "linux-source-6_1.deb", sources)
    result = build("build_large_code.py", packages, packages / "built")
    assert result.returncode == 0, result.stderr
    return {
        split: (packages / "built" / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        for split in ("train", "validation")
    }


def test_code_is_without_licences_and_keeps_its_lines_in_order(code):
    passages = code["train"] + code["validation"]
    kept = "/* Kept, café. */ static int probe(struct device *dev) { if (!dev) return -EINVAL; }"
    assert passages.count(kept) == 1  # it stands in two files
    assert not [p for p in passages if "SPDX" in p or "Copyright" in p or "caf\ufffd" in p]
    assert not [p for p in passages if "REGISTER" in p or LONG.strip() in p]


def test_code_is_cut_into_passages_at_line_ends(code):
    passages = code["train"] + code["validation"]
    # Lines of 16 characters and then of 19, with the spaces: a passage ends at the first line after
    # 500. The last three lines are shorter than a passage may be.
    assert " ".join(["call(argument);"] * 20 + ["another(argument);"] * 10) in passages
    assert " ".join(["another(argument);"] * 27) in passages
    assert len([p for p in passages if "argument" in p]) == 2


def test_the_files_of_a_folder_of_code_are_in_the_same_split(code):
    def folders(name: str, split: str) -> set[str]:
        return {p.split()[-2] for p in code[split] if p.startswith(f"/* {name} */")}

    held_out = folders("first", "validation")
    assert held_out == folders("second", "validation") and 0 < len(held_out) < 15
    assert held_out.isdisjoint(folders("first", "train"))
    assert len(held_out) + len(folders("first", "train")) == 60


def test_without_the_sources_of_linux_no_code_is_built(tmp_path):
    result = build("build_large_code.py", tmp_path, tmp_path / "built")
    assert result.returncode == 1
    assert f"{tmp_path} has no linux-source*.deb" in result.stderr
