"""What the pages name is there: links, files, macros, commands."""

import itertools
import re
import shlex

import pytest

from switch_jax import gin_config
from switch_jax.cli import make_parser
from switch_jax.cli.gin_flags import expand_bindings
from switch_jax.utils.paths import GIN_DIR
from tests.docs.pages import DOCS, ROOT, commands, navigation, prose, reference, texts

TEXTS = texts()
PAGES = sorted(TEXTS)
MACROS = {
    macro.name
    for file in (ROOT / "gin").rglob("*.gin")
    for macro in reference.macros_of(str(file.relative_to(ROOT / "gin")))
}
# Names in capitals that are no macros: of the environment, of other programs, and what stands for
# a value in a command or a path.
OTHER_NAMES = {
    "GOOGLE_APPLICATION_CREDENTIALS", "JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS",
    "LIBTPU_INIT_ARGS", "STORAGE_EMULATOR_HOST",
    "TENSORSTORE_GCS_HTTP_URL", "TFDS_DATA_DIR", "WANDB_MODE",
    "CPU_CORES", "MODEL_DIR", "PROJECT_NUMBER",
    "STEPS_OF_LINES", "T5_FEATURES",  # of Python
}  # fmt: skip
UNNEEDED = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "INITIAL_CHECKPOINT_PATH", "TEACHER_DIR")


def _slug(heading: str) -> str:
    """The anchor of a heading, as Python-Markdown makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def _anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", TEXTS[page], re.M)
    return {*map(_slug, headings), *re.findall(r'^<a id="([^"]+)"></a>$', TEXTS[page], re.M)}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[page])):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else ROOT / page
        name = str(file.relative_to(ROOT))
        assert file.exists() or name in TEXTS, f"{target}: there is no {name}"
        if anchor:
            assert anchor in _anchors(name), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_is_there(page):
    folders = "switch_jax|tests|gin|tasks|benchmarks|launch|docs|tools|notebooks|models|runs|paper"
    for path in re.findall(rf"`((?:{folders})/[\w/.*{{}},-]+)`", prose(TEXTS[page])):
        if path.startswith("runs/") and not path.endswith(".gin"):
            continue  # what a command writes
        for name in _alternatives(path.rstrip("/")):
            # In gin/ for a config; in a wheel, gin/, tasks/ and launch/ are below switch_jax/.
            places = [name, f"gin/{name}", name.removeprefix("switch_jax/")]
            assert any(any(ROOT.glob(place)) for place in places), name


def _alternatives(path: str) -> list[str]:
    """models/t5_{small,base}.gin as two paths."""
    match = re.search(r"{([^}]*)}", path)
    if not match:
        return [path]
    choices = match[1].split(",")
    return [p for c in choices for p in _alternatives(path.replace(match[0], c, 1))]


@pytest.mark.parametrize("page", PAGES)
def test_every_macro_that_is_named_is_one(page):
    text = TEXTS[page].replace(r"\_", "_")
    if page == "docs/coming_from.md":  # the first column has the names of others
        text = re.sub(r"(?m)^\|[^|]*\|", "|", text)
    named = re.findall(r"--gin\.([A-Z][A-Z0-9_]*)\b(?![.\w])", text)
    named += re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?: = [^`]*)?`", prose(text))
    assert set(named) - {"NAME"} <= MACROS | OTHER_NAMES


def test_every_command_is_understood_and_its_gin_files_go_together(capsys):
    parser, combinations = make_parser(), 0
    for line in itertools.chain.from_iterable(map(commands, TEXTS.values())):
        match = re.search(r"(?:^|\| |&& )switch_jax (.*)", line)
        if not match or re.search(r"\.\.\.|\bCHANGE\b", line):
            continue
        words = shlex.split(match[1], comments=True)
        end = next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";")), None)
        try:
            args = parser.parse_args(expand_bindings(words[:end]))
        except SystemExit as ended:
            assert not ended.code, f"{line}: {capsys.readouterr().err}"  # 0: of --help
            continue
        files = getattr(args, "gin_file", [])
        if len(files) > 1 and all((GIN_DIR / file).exists() for file in files):
            print(line)  # shown where the next line fails
            gin_config.read(files, args.gin_bindings, unneeded=UNNEEDED)
            combinations += 1
    assert combinations >= 20


def test_a_recipe_has_the_values_of_the_command_that_it_leads_to():
    tpus = TEXTS["docs/recipes.md"].partition("## TPUs")[2]
    rows = re.findall(r"(?m)^\|(.+)\]\((\w+\.md)#?([\w-]*)\) \|$", tpus)
    assert len(rows) >= 4
    for row, page, anchor in rows:
        text = TEXTS[f"docs/{page}"]
        sections = re.split(r"(?m)^## (.+)\n", text)
        if anchor:
            text = sections[[_slug(part) for part in sections].index(anchor) + 1]
        for name, value in re.findall(r"([A-Z_]+)=(\d+)", row):
            assert re.search(rf"\b{name} ?= ?{value}\b", text), f"{page}: not {name}={value}"


def test_the_readme_is_read_in_five_minutes():
    assert len(TEXTS["README.md"].splitlines()) <= 120


def test_every_page_is_in_the_navigation():
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert set(navigation()) == pages
