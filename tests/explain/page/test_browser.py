"""The page in headless Chromium: every control changes the picture, and a point shows what the arrays say of it."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.explain.page.content import HEIGHT, HOSTILE, NOTES, STAGE, WIDTH, Content

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open a page in")

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SMALL = {"width": 760, "height": 420}  # quick to draw, with the controls beside the picture
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lattice() -> Content:
    return Content("lattice", epochs=3, absent=20)


@pytest.fixture(scope="module")
def cloud() -> Content:
    return Content("cloud", epochs=1)


@pytest.fixture(scope="module")
def addresses(lattice: Content, cloud: Content, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    return {c.kind: c.write(folder / f"{c.kind}.html") for c in (lattice, cloud)}


def open_page(browser: Any, address: str, problems: list[str], **options: Any) -> Any:
    """A page; errors in its console and requests for other files are noted in problems."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(120_000)  # of a busy machine
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or problems.append(r.url))
    page.goto(address)
    page.evaluate(FRAMES)
    return page


@pytest.fixture(scope="module")
def pages(browser: Any, addresses: dict[str, str]) -> dict[str, tuple[Any, list[str]]]:
    """An open page of each kind, and what went wrong there."""
    found: dict[str, list[str]] = {kind: [] for kind in addresses}
    return {kind: (open_page(browser, addresses[kind], found[kind], viewport=SMALL), found[kind]) for kind in found}


@pytest.fixture
def visit(pages: dict[str, tuple[Any, list[str]]]) -> Iterator[Callable[..., Any]]:
    """Bring a page into a state, without a mouse over the picture. A problem of a page fails the test."""

    def visit(kind: str, state: str = "") -> Any:
        page, _ = pages[kind]
        page.mouse.move(1, 1)
        page.evaluate("(state) => void (location.hash = state)", f"start&{state}")
        page.evaluate(FRAMES)
        return page

    yield visit
    for page, problems in pages.values():
        page.set_viewport_size(SMALL)
        page.emulate_media(color_scheme="light")
        assert not problems


def pixels(page: Any) -> np.ndarray:
    """The picture as it is drawn, (height, width, 4)."""
    page.evaluate(FRAMES)
    data = page.evaluate("document.getElementById('picture').toDataURL()").partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGBA"))


def rects(page: Any) -> list[list[float]]:
    page.evaluate(FRAMES)
    return page.evaluate("JSON.parse(document.getElementById('picture').dataset.rects)")


def shown(page: Any) -> dict[str, str]:
    """What the page says of the point in focus."""
    page.evaluate(FRAMES)
    return page.evaluate("({...document.getElementById('readout').dataset})")


def move_to(page: Any, x: float, y: float) -> None:
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)


def pixel_place(page: Any, pixel: int, panel: int = 0) -> tuple[float, float]:
    x, y, w, h = rects(page)[panel]
    return x + (pixel % WIDTH + 0.5) * w / WIDTH, y + (pixel // WIDTH + 0.5) * h / HEIGHT


def camera(address: str) -> list[float]:
    """Turn, tilt, zoom, right and down in the address of a page; empty as at first."""
    return [float(value) for value in address.partition("camera=")[2].split("+") if value]


def change(page: Any, control: str, value: str) -> None:
    """Set a control as its user would."""
    if control in ("view", "block", "head", "map"):
        page.select_option(f"#{control}", value)
    elif control == "marks":
        page.set_checked("#marks", value == "true")
    else:
        page.fill(f"#{control}", value)


@pytest.mark.parametrize(
    "kind, steps",
    [
        (
            "lattice",
            "opacity=20 marks=false head=1 head=all block=1 point=7 view=input view=reduced view=maps map=1 epoch=0",
        ),
        ("cloud", "opacity=20 size=200 marks=false block=all head=1 view=maps view=reduced point=7"),
    ],
)
def test_every_control_changes_the_picture_and_the_address(visit: Callable[..., Any], kind: str, steps: str) -> None:
    page = visit(kind)
    before = pixels(page)
    for step in steps.split():
        change(page, *step.split("="))
        after = pixels(page)
        assert not np.array_equal(before, after), step
        before = after
    page.wait_for_url(f"**{step}*")
    page.reload()  # the address holds all of it
    assert np.array_equal(pixels(page), after)


@pytest.mark.parametrize("block, head", [(0, 0), (1, 2), (2, 1)])
def test_a_pixel_under_the_mouse_shows_what_the_arrays_say(
    visit: Callable[..., Any], lattice: Content, block: int, head: int
) -> None:
    page = visit("lattice", f"block={block}&head={head}")
    for point in (0, 33, lattice.count - 1):
        move_to(page, *pixel_place(page, lattice.pixel[point]))
        assert shown(page) == lattice.expected(point, block, head)
    row, column = divmod(lattice.pixel[point], WIDTH)
    assert f"row {2 * row}, column {2 * column}\n" in page.inner_text("#readout"), "of the input, not of the lattice"
    missing = next(iter(set(range(HEIGHT * WIDTH)) - set(lattice.pixel.tolist())))
    x, y = pixel_place(page, missing)
    red, green, blue, _ = pixels(page)[int(y), int(x)].tolist()
    assert 200 < red <= green <= blue < 240, "hatched"
    move_to(page, x, y)
    assert shown(page) == {}


def test_in_small_multiples_the_head_under_the_mouse_is_read(visit: Callable[..., Any], lattice: Content) -> None:
    page = visit("lattice", "block=1&head=all")
    assert len(rects(page)) == 4, "the input and three heads"
    move_to(page, *pixel_place(page, lattice.pixel[5], panel=3))
    assert shown(page) == lattice.expected(5, block=1, head=2)
    assert "head 3 of 3" in page.inner_text("#readout")


def test_the_cluster_keeps_its_color_and_the_others_are_pale(visit: Callable[..., Any], lattice: Content) -> None:
    page = visit("lattice", "opacity=100&marks=false")
    before = pixels(page)
    move_to(page, *pixel_place(page, lattice.pixel[5]))
    after = pixels(page)
    x, y, w, h = rects(page)[0]
    of = lattice.epochs[-1]["blocks"][0]
    center = lattice.arrays[of["center"]][lattice.arrays[of["nearest"]], 0]  # of each point
    window = center // 3
    colors, wrong = lattice.arrays[of["color"]][0], []
    for point in range(lattice.count):
        row, column = lattice.pixel[point] // WIDTH, lattice.pixel[point] % WIDTH
        at = int(y + (row + 0.15) * h / HEIGHT), int(x + (column + 0.15) * w / WIDTH)  # beside the mark of the point
        assert before[at][:3].tolist() == colors[center[point]].tolist()
        pale = 0.0 if center[point] == center[5] else 0.55 if window[point] == window[5] else 0.82
        expected = colors[center[point]] + pale * (255.0 - colors[center[point]])
        wrong.append(np.abs(after[at][:3] - expected).max() > 1)
    assert sum(wrong) < 12, "all but those under the line from the point to its center"


def test_a_click_keeps_a_point_and_escape_lets_it_go(visit: Callable[..., Any], lattice: Content) -> None:
    page = visit("lattice")
    move_to(page, *pixel_place(page, lattice.pixel[5]))
    page.mouse.down()
    page.mouse.up()
    move_to(page, *pixel_place(page, lattice.pixel[40]))
    assert shown(page) == lattice.expected(5, 0, 0)
    assert page.input_value("#point") == "5"
    page.keyboard.press("Escape")
    assert shown(page) == lattice.expected(40, 0, 0)


def test_the_arrow_keys_go_through_blocks_and_heads(visit: Callable[..., Any]) -> None:
    page = visit("lattice")
    page.focus("#picture")
    for key, block, head in [
        ("Right", "1", "0"),
        ("Down", "1", "1"),
        ("Down", "1", "2"),
        ("Left", "0", "1"),
        ("Up", "0", "0"),
    ]:
        page.keyboard.press(f"Arrow{key}")
        assert (page.input_value("#block"), page.input_value("#head")) == (block, head)


def test_a_block_that_groups_nothing_says_so(visit: Callable[..., Any]) -> None:
    page = visit("lattice", "view=input")
    pictures = {"input": pixels(page)}
    change(page, "view", "clusters")
    change(page, "block", "2")
    pictures["trivial"] = pixels(page)
    assert "nothing is grouped" in page.get_attribute("#picture", "aria-label")
    x, y, w, h = rects(page)[0]
    corner = np.s_[y : y + h // 4, x : x + w // 4]
    assert np.array_equal(pictures["trivial"][corner], pictures["input"][corner]), "the input, not a checkerboard"
    assert not np.array_equal(pictures["trivial"], pictures["input"]), "with the message"


def test_reduced_clusters_and_maps_are_read(visit: Callable[..., Any], lattice: Content) -> None:
    page = visit("lattice", "view=reduced")
    move_to(page, *pixel_place(page, lattice.pixel[9]))
    reduced = lattice.epochs[-1]["reduced"]
    label = lattice.arrays[reduced["label"]][lattice.arrays[reduced["nearest"]]]
    assert shown(page) == {"point": "9", "cluster": str(label[9])}
    assert f"{(label == label[9]).sum()} of {lattice.count} shown points" in page.inner_text("#readout")
    change(page, "view", "maps")
    move_to(page, *pixel_place(page, lattice.pixel[9], panel=1))
    page.evaluate(FRAMES)
    for map_ in lattice.epochs[-1]["maps"]:
        at = 9 if map_["nearest"] is None else lattice.arrays[map_["nearest"]][9]
        assert f"{-1 + lattice.arrays[map_['value']][at] / 255 * 4:.3g}" in page.inner_text("#readout")


def test_a_point_of_a_cloud_shows_what_the_arrays_say(visit: Callable[..., Any], cloud: Content) -> None:
    page = visit("cloud", "size=250")
    x, y, w, h = rects(page)[0]
    seen = set()
    for part in np.linspace(0.3, 0.7, 6):
        move_to(page, x + part * w, y + part * h)
        found = shown(page)
        if found:
            point = int(found["point"])
            assert found == cloud.expected(point, 0, 0)
            place = np.array([-1, 0, 2]) + cloud.position[point] * 1e-4
            assert ", ".join(f"{v:.3f}" for v in place) in page.inner_text("#readout")
            assert f"of {STAGE} shown points" in page.inner_text("#readout"), "the others are not on the page"
            seen.add(point)
    assert len(seen) > 2


def test_a_cloud_turns_zooms_and_moves(visit: Callable[..., Any]) -> None:
    page = visit("cloud")
    first = pixels(page)

    before = [-0.4, 0.3, 1, 0, 0]
    for gesture, changing in [("turn", [True, True, False, False, False]), ("move", [False, False, False, True, True]),
                              ("zoom", [False, False, True, False, False])]:  # fmt: skip
        move_to(page, 200, 150)
        if gesture == "zoom":
            page.mouse.wheel(0, -300)
        else:
            page.keyboard.down("Shift") if gesture == "move" else None
            page.mouse.down()
            move_to(page, 260, 190)
            page.mouse.up()
            page.keyboard.up("Shift")
        page.wait_for_url(lambda url, before=before: camera(url) not in ([], before))
        after = camera(page.url)
        assert [a != b for a, b in zip(before, after, strict=True)] == changing, gesture
        before = after
    assert not np.array_equal(pixels(page), first)
    page.mouse.dblclick(300, 200)
    page.mouse.move(1, 1)
    assert np.array_equal(pixels(page), first), "a double click resets"


def test_two_fingers_zoom_and_a_tap_keeps_a_point(browser: Any, addresses: dict[str, str]) -> None:
    problems: list[str] = []
    page = open_page(browser, addresses["cloud"], problems, viewport=PHONE, has_touch=True, is_mobile=True)
    page.fill("#size", "250")
    page.evaluate(FRAMES)
    x, y, w, h = rects(page)[0]
    box = page.locator("#picture").bounding_box()
    middle = [box["x"] + x + w / 2, box["y"] + y + h / 2]
    page.touchscreen.tap(*middle)
    assert "cluster" in shown(page)
    assert page.inner_text("#help") == "Drag to turn; two fingers zoom and move."
    session = page.context.new_cdp_session(page)
    for apart in (40, 60, 80, None):
        kind = {40: "touchStart", None: "touchEnd"}.get(apart, "touchMove")
        sides = () if apart is None else (-apart, apart)
        fingers = [{"x": middle[0] + side, "y": middle[1], "id": i} for i, side in enumerate(sides)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    page.wait_for_url(lambda url: [round(zoom, 1) for zoom in camera(url)[2:3]] == [2.0])  # twice as far apart
    assert not problems


@pytest.mark.parametrize("kind, scheme", [("lattice", "light"), ("cloud", "dark")])
def test_it_fits_a_desktop_and_a_phone(visit: Callable[..., Any], kind: str, scheme: str) -> None:
    page = visit(kind, "block=all")
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme=scheme)
    paper = pixels(page)[0, -1, :3]
    assert (paper > 200).all() if scheme == "light" else (paper < 60).all()
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [1280, 800]
    page.set_viewport_size(PHONE)
    page.evaluate(FRAMES)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    picture, controls = (page.locator(name).bounding_box() for name in ("#picture", "#controls"))
    assert picture["y"] + picture["height"] <= controls["y"] < 844
    for x, y, w, h in rects(page):
        assert 0 <= x and x + w <= picture["width"] + 1 and y + h <= picture["height"] + 1 and min(w, h) > 60
    page.set_viewport_size({"width": 390, "height": 300})
    page.evaluate(FRAMES)
    assert all(w > 100 and (h > 100 or kind == "lattice") for _, _, w, h in rects(page)), "it is scrolled instead"
    assert (pixels(page)[0] == pixels(page)[0, -1]).all(), "no heading is cut"


def test_titles_guess_and_counts_are_text(visit: Callable[..., Any], lattice: Content) -> None:
    page = visit("lattice")
    assert page.title() == page.inner_text("h1") == HOSTILE
    assert page.inner_text("#subtitle") == "coc_tiny"
    assert page.inner_text("#notes") == " ".join(NOTES)
    assert page.inner_text("#guess").split("\n")[:3] == ["Prediction", "cat", "90.0%"]
    assert "True label: cat ✓" in page.inner_text("#guess")
    page.fill("#epoch", "0")
    assert "50.0%" in page.inner_text("#guess") and "True label: cat ✗ predicted dog" in page.inner_text("#guess")
    assert page.inner_text("#epoch-label") == "epoch 10"


@pytest.mark.parametrize(
    "state", ["view=nothing&block=99&head=-3&epoch=x&opacity=1e9&point=1e9", "camera=1&view=%00&a=b"]
)
def test_any_address_shows_something(visit: Callable[..., Any], state: str) -> None:
    page = visit("lattice", state)
    assert page.input_value("#view") == "clusters"
    assert page.input_value("#block") in ("0", "2")


def test_the_picture_is_saved(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit("lattice")
    with page.expect_download() as download:
        page.click("#save")
    assert "<" not in download.value.suggested_filename and download.value.suggested_filename.endswith(".png")
    download.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as image:
        height, width, _ = pixels(page).shape
        assert image.size == (2 * width, 2 * height)
