"""Every page: its links lead somewhere, its pictures and sounds can be made again, its blocks run or are parsed."""

import re
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote

import pytest
from support import ROOT
from support.pages import FENCE, anchored, blocks, check, check_yaml, commands, file, links, text

FOLDERS = ("*.md", "docs/**/*.md", "data/demo/*.md", "data/pretrained/*.md")
PAGES = sorted(str(path.relative_to(ROOT)) for pattern in FOLDERS for path in ROOT.glob(pattern))

# Which test runs the blocks of a page. What is not here, or in PARSED, may have no block.
RUN = {
    "README.md": "test_readme.py",
    "data/pretrained/README.md": "test_pretrained.py",
    "docs/another_gan.md": "test_another_gan_page.py",
    "docs/fine_tuning.md": "test_fine_tuning_page.py",
    "docs/multi_gpu.md": "test_multi_gpu_page.py",
    "docs/techniques.md": "test_techniques_page.py",
    "docs/training.md": "test_training_page.py",
    "docs/troubleshooting.md": "test_troubleshooting_page.py",
    "docs/weights.md": "test_weights_page.py",
}
# Pages whose commands take hours, a corpus or a network: their arguments are parsed here.
PARSED = {
    "CONTRIBUTING.md",
    "docs/examples/README.md",
    "docs/averaging.md",
    "docs/batch_size.md",
    "docs/data.md",
    "docs/learning_rates.md",
    "docs/quality.md",
}

TECHNIQUES = ("accumulation", "averages", "batch_size", "clipping", "guard", "lr_find", "schedules")
TROUBLES = ("buzz", "discriminator", "loader", "mels", "memory", "metallic", "nan", "resumed")
# Which command makes which pictures and sounds; it is named on a page that links to one of them.
MADE = {
    "docs/cost.png": "python docs/cost.py",
    "docs/learning_rates.png": "python docs/learning_rates.py",
    "docs/sounds/*": "python docs/sounds.py",
    "docs/pictures/warmup.png": "python docs/warmup.py",
    "docs/pictures/recipes.png": "python docs/recipes.py",
    "docs/examples/digits.png": "python docs/examples/digits.py",
    **dict.fromkeys([f"docs/pictures/{name}.png" for name in TECHNIQUES], "python docs/techniques.py"),
    **dict.fromkeys([f"docs/pictures/{name}.png" for name in TROUBLES], "python docs/troubleshooting.py"),
}
MEDIA = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").rglob("*")
    if path.suffix in (".png", ".svg", ".jpg", ".gif", ".wav", ".flac")
)


def anchors(page: str) -> set[str]:
    """Return what GitHub makes of a page's headings."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+)$", FENCE.sub("", text(page)), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        if count:
            found[f"{name}-{count}"] = 0
    return set(found)


def target(page: str, link: str) -> Path:
    path = unquote(link.partition("#")[0])
    return (file(page).parent / path).resolve() if path else file(page)


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_repository_lead_somewhere(page: str) -> None:
    for link in links(page):
        place = target(page, link)
        assert place.exists(), f"{page} links to {link}, which is not there"
        assert place.is_relative_to(ROOT), f"{page} links to {link}, outside the repository"
    for link, anchor in anchored(page).items():
        there = anchors(str(target(page, link).relative_to(ROOT)))
        assert anchor in there, f"{page} links to {link}: no such heading"


def test_anchors_are_githubs() -> None:
    assert "exported-graphs-against-the-vocoder-itself" in anchors("docs/speed.md")
    assert "inference-against-transformersunivnetmodel" in anchors("docs/speed.md")
    assert "lightnings-techniques-and-ours" in anchors("docs/errors.md")


@pytest.mark.parametrize("media", MEDIA)
def test_a_picture_or_sound_is_used_and_can_be_made_again(media: str) -> None:
    users = [page for page in PAGES if ROOT / media in [target(page, link) for link in links(page)]]
    assert users, f"{media} is on no page"
    [command] = [command for pattern, command in MADE.items() if fnmatch(media, pattern)]
    assert any(command in text(page) for page in users), f"no page with {media} says that {command} makes it"
    script = re.match(r"python (\S+)", command)
    if script is not None:
        assert Path(media).stem in text(script[1]), f"{script[1]} does not name {media}"


def test_the_lists_here_are_of_what_there_is() -> None:
    assert RUN.keys() | PARSED <= set(PAGES)
    assert not RUN.keys() & PARSED
    assert all(any(fnmatch(media, pattern) for media in MEDIA) for pattern in MADE)
    for page, test in RUN.items():
        source = text(f"tests/{test}")
        assert Path(page).name in source, f"{test} does not read {page}"
        assert re.search(r"\b(run|main)\(", source), f"{test} runs nothing"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_run_or_parsed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page)
    assert {block.language for block in found} <= {"sh", "python", "yaml", "mermaid"}
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "docs"))  # median_limit.MedianLimit, which techniques.md names
    for block in found:
        if block.language == "yaml":
            check_yaml(block, tmp_path)
        elif block.language == "python":
            assert page in RUN, f"no test runs the blocks of {page}"
        elif block.language == "sh" and page not in RUN:
            assert page in PARSED, f"no test knows the commands of {page}"
            for words in commands(block.code):
                check(words)


@pytest.mark.parametrize(
    "command",
    [
        "univnet fit --config configs/demo.yaml --data.rooot DIR",
        "univnet evaluate --data DIR --output report --chekpoint best.ckpt",
        "univnet train",
        "python docs/nothing.py",
        "python scripts/prepare_data.py LibriTTS --outptu prepared",
        "make dmeo",
        "pip install 'univnet[evil]'",
        "curl example.org",
    ],
)
def test_a_command_that_does_not_exist_is_seen(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    [words] = commands(command)
    with pytest.raises((AssertionError, SystemExit, FileNotFoundError)):
        check(words)
