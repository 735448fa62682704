"""The page for the lecture, in a real browser: what it computes is what the notebook computes."""

import base64
import gzip
import json
import re

import numpy as np
import pytest
import torch
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_browser import CHROMIUM, DRIVER, QUIET

from slides import build as slides
from slides.demo import build, picture
from tools.files import ROOT, read_json

TEXT = read_json(build.FOLDER / "text.json")
PAGE = build.PAGE.read_text(encoding="utf-8")
SIZES = [(1920, 1080), (1280, 720), (390, 844)]
# For an answer and for a curve, on a machine that does other things beside.
MOST_SECONDS = {"answer": 1.0, "curve": 20.0}

in_a_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)
with_networks = pytest.mark.skipif(
    not all((ROOT / "data/checkpoints" / f"{name}.pt").exists() for name in build.NETWORKS),
    reason="needs the networks of a full run: make run",
)


def meta(name):
    """What a meta element of the page says."""
    return re.search(rf'<meta name="{name}" content="(.*?)">', PAGE)[1]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A headless Chromium that notes what it fetches and what its console says."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def resize(driver, width, height):
    """Show the page in a window, or on a phone, of so many pixels."""
    shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)


STARTED = "typeof workers !== 'undefined' && workers && state.answers.length === 3 && !ask.busy"
HERE = "NETS.every(net => state.points.get(point(net, state.rate))?.asked >= 100)"
WHOLE = "!state.wanted.length && !workers.some(worker => worker.busy)"


def settled(driver, curve=HERE):
    """Wait for the answers, and the curve where the slider is, or the `WHOLE` curve."""
    script = f"return {STARTED} && {curve}"
    WebDriverWait(driver, MOST_SECONDS["curve"]).until(lambda d: d.execute_script(script))


@pytest.fixture
def page(driver):
    """The page as it opens. In the end it must have fetched nothing and its console be empty."""
    resize(driver, 1280, 720)
    driver.get("about:blank")  # or only the end of the address would change
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get(build.PAGE.as_uri())
    settled(driver)
    yield driver
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    fetched = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert {url for url in fetched if not url.startswith(("blob:", "data:"))} <= {
        build.PAGE.as_uri()
    }
    assert driver.get_log("browser") == []


def compute(page, chip, images="[state.image]", given="null"):
    """What the page's worker answers: logits [networks, images, (red, green), 2] and a tile."""
    script = f"""
    const answered = compute({{ images: {images}, chip: {chip}, given: {given} }});
    answered.then(({{ answers, tile }}) => arguments[0]({{ answers, tile: [...tile] }}));
    """
    found = page.execute_async_script(script)
    return np.array(found["answers"]), np.array(found["tile"])


def cards(page):
    """(class, answer, mark) of the three networks."""
    script = """
    return [...document.querySelectorAll("article")].map(card => [card.className,
        ...[".answer b", ".mark"].map(part => card.querySelector(part).textContent)]);
    """
    return [tuple(card) for card in page.execute_script(script)]


def click(page, selector):
    """Click like a person who has scrolled there, and wait for what follows."""
    page.execute_script("document.querySelector(arguments[0]).click()", selector)
    settled(page)


# The file


def test_the_page_is_not_stale():
    """It carries the hash of what git keeps of its sources; `make demo` renews it."""
    assert meta("sources") == build.sources(), "stale: run `make demo`"


@with_networks
def test_the_page_holds_the_networks_of_the_last_run(nb):
    """Weights are not in git; where they are, the page's are theirs."""
    assert meta("weights") == build.weights_digest(build.load_networks(nb)), (
        "stale: run `make demo`"
    )


def test_each_presentation_shows_the_page_in_its_language():
    """By the picture that is taken of the address to which its slide leads."""
    for language in ("en", "zh"):
        (entry,) = (e for e in slides.text_of(language)["backup"] if e.get("draw") == "demo")
        shown = picture.PICTURES[entry["page"].removeprefix(build.PAGE.name)]
        assert shown == slides.DEMO / entry["shown"] and shown.is_file()
        assert (".zh." in shown.name) == (language == "zh")


def test_small_and_plain():
    """One file of at most 1.5 MB, from at most 500 lines of JavaScript and CSS, blank ones and
    comments aside."""
    assert build.PAGE.stat().st_size <= 1_500_000
    lines = [
        line.strip()
        for path in (*build.FOLDER.glob("*.js"), *build.FOLDER.glob("*.css"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len([line for line in lines if line and not line.startswith(("//", "/*"))]) <= 500
    assert max(map(len, lines)) <= 100
    assert "{{" not in PAGE and "http" not in re.sub(r"http-equiv", "", PAGE)


def test_every_text_is_there_in_both_languages():
    """Every key that the page uses, and no other; Chinese where it is Chinese."""
    english, chinese = TEXT["en"], TEXT["zh"]
    pages = "".join(path.read_text(encoding="utf-8") for path in build.FOLDER.glob("*.html"))
    script = (build.FOLDER / "page.js").read_text(encoding="utf-8")
    marked = re.findall(r'data-(?:t|label)="(\w+)({{number}})?"', pages)
    used = {key + i for key, many in marked for i in ("012" if many else [""])}
    used |= {key + i for key in re.findall(r"say\(`(\w+)\$", script) for i in "012"}
    used |= set(re.findall(r'"(\w+)"', script)) & set(english)
    assert list(english) == list(chinese) and set(english) == used
    same = {key for key in english if english[key] == chinese[key]}
    assert all(chinese.values()) and same == set()
    for key in english:
        fields = [sorted(re.findall(r"{(\w+)}", words[key])) for words in (english, chinese)]
        assert fields[0] == fields[1], key
        assert key == "other" or not re.search(r"[\u3400-\u9fff]", english[key])


def test_digits_are_of_the_test_environment(mnist, environments):
    """MNIST's training images from 40,000 on, with their labels and colours; nothing of t10k."""
    packed = re.search(r'id="digits">(.*?)<', PAGE)[1]
    shown = np.frombuffer(gzip.decompress(base64.b64decode(packed)), np.uint8)
    assert torch.equal(torch.from_numpy(shown.copy()).view(-1, 28, 28), mnist[0][40_000:40_500])
    facts = json.loads(re.search(r'id="facts">(.*?)<', PAGE)[1])
    test = environments["test"][:500]
    assert facts["labels"] == test.labels.tolist() and facts["red"] == test.is_red.tolist()
    assert mnist[1][40_000:][facts["row"]].tolist() == list(range(10))


# What it computes


@pytest.fixture(scope="module")
def painted(nb, mnist):
    """Float images of the first digits in red and in green, [200, 2, 3, 28, 28]."""
    shapes, red = mnist[0][40_000:40_200].float() / 255, torch.ones(200, dtype=torch.bool)
    return torch.stack([nb.paint(shapes, red), nb.paint(shapes, ~red)], 1)


FIRST = "[...Array({}).keys()].map(i => digits.subarray(784 * i, 784 * (i + 1)))"


@pytest.mark.slow
@in_a_browser
@with_networks
def test_logits_are_those_of_pytorch(nb, page, painted):
    """On 200 digits in both colours, to 1e-4."""
    found, _ = compute(page, "{ software: true }", FIRST.format(200))
    with torch.no_grad():
        right = [
            network(painted.flatten(0, 1)).view(200, 2, 2) for network in build.load_networks(nb)
        ]
    most = np.abs(found - torch.stack(right).numpy()).max()
    print(f"logits differ by at most {most:.1e}")
    assert most < 1e-4


def crossbars(nb, chip):
    """A chip's conductances, positive minus negative array, as the page takes them: base64."""
    found = []
    for layer in nb.memristive_layers(chip):
        cells = nb.cells_of(layer.crossbars[0])
        first, second = (array.conductance_matrix.reshape(-1)[cells] for array in layer.crossbars)
        found.append(base64.b64encode((first - second).numpy().tobytes()).decode())
    found[0] = base64.b64encode(base64.b64decode(found[0])[: 50 * 32 * 4]).decode()  # none is blue
    return found


@pytest.fixture(scope="module")
def intended(nb):
    """The networks as the page maps them, before anything breaks."""
    return [
        nb.to_memristive(network, nb.MemristorConfig(balanced=balanced))
        for network, balanced in zip(build.load_networks(nb), build.NETWORKS.values(), strict=True)
    ]


def asked(nb, chip, painted):
    """Logits by `fast_crossbars`, [images, (red, green), 2]."""
    with torch.no_grad(), nb.fast_crossbars(chip):
        return chip(painted.flatten(0, 1)).view(-1, 2, 2).numpy()


@pytest.mark.slow
@in_a_browser
@with_networks
def test_broken_chips_answer_as_in_the_notebook(nb, page, painted, intended):
    """Ten broken chips with given conductances: at least 99% of answers are the same."""
    same, few = [], painted[:100]
    for number in range(10):
        net, rate = number % 3, (0.02, 0.05, 0.1, 0.3)[number % 4]
        chip = nb.apply_device_faults(intended[net], rate, 0.0, number)
        page.execute_script("window.sent = arguments[0]", crossbars(nb, chip))
        given = """
        Array(3).fill(sent.map(text => new Float32Array(
            Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer)))
        """
        found, _ = compute(page, f"{{ given: {number + 1} }}", FIRST.format(100), given)
        same.append(found[net].argmax(-1) == asked(nb, chip, few).argmax(-1))
    print(f"agreement of ten broken chips: {np.mean(same):.2%}")
    assert np.mean(same) >= 0.99


def stuck_order(seed, array, count):
    """The page's order of devices, in Python: an inside-out shuffle by mulberry32."""
    state, order = (seed * 0x9E3779B1 ^ (array + 1) * 0x85EBCA77) & 0xFFFFFFFF, [0] * count
    for i in range(count):
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        t = (state ^ state >> 15) * (1 | state) & 0xFFFFFFFF
        t = (t + ((t ^ t >> 7) * (61 | t) & 0xFFFFFFFF) & 0xFFFFFFFF) ^ t
        j = int((t ^ t >> 14) / 2**32 * (i + 1))
        order[i], order[j] = order[j], i
    return torch.tensor(order)


@pytest.mark.slow
@in_a_browser
@with_networks
@pytest.mark.parametrize(
    ("net", "copies", "wires"),
    [(1, False, False), (2, True, False), (1, False, True), (2, False, True)],
)
def test_its_own_chips_are_built_as_in_the_notebook(
    nb, page, painted, intended, net, copies, wires
):
    """The devices that the page breaks, broken in the notebook's chip: mapping, copies and, nearly,
    wires agree."""
    chip, rate, few = intended[net], 0.1, painted[:100]
    chip, place = nb.copy_memristive(chip), 0
    for layer in nb.memristive_layers(chip):
        beside = nb.copies_that_fit(layer) if copies else 1
        values = nb.conductances_of(layer).repeat(1, 1, beside)
        for part in values:
            used = part.numel() if place > 1 else 50 * part.shape[1]  # nothing is blue
            order = stuck_order(1, place, used)
            part.view(-1)[order[: round(rate * used)]] = 1 / chip.config.r_on
            place += 1
        if wires:
            for tile in (tile for part in values for tile in nb.tiles_of(layer, part)):
                tile.copy_(nb.effective_conductances(tile, build.OHMS))
        nb.write(layer, values.unflatten(-1, (beside, -1)).mean(-2))
    settings = (
        f"{{ seed: 1, rate: {rate}, copies: {str(copies).lower()}, wires: {str(wires).lower()} }}"
    )
    found, _ = compute(page, settings, FIRST.format(100))
    right = asked(nb, chip, few)
    same, error = found[net].argmax(-1) == right.argmax(-1), np.abs(found[net] - right).mean()
    error /= right.std()
    print(f"{net}, {copies=}, {wires=}: {same.mean():.2%} of answers agree, logits to {error:.2%}")
    assert same.mean() >= (0.97 if wires else 0.99) and error < (0.1 if wires else 0.01)


# What people do


@pytest.mark.slow
@in_a_browser
def test_the_argument_is_there_before_anyone_touches_it(page):
    """A 3, called 0 in red and 1 in green by the first network, and 0 by the others."""
    assert [(kind, answer) for kind, answer, _ in cards(page)] == [
        ("flips", "0–4"),
        ("same", "0–4"),
        ("same", "0–4"),
    ]
    logits, _ = compute(page, "chip()")
    assert (logits[:, 0, :, 1] > logits[:, 0, :, 0]).tolist() == [[False, True], *[[False] * 2] * 2]
    settled(page, WHOLE)
    print(f"the whole curve: {page.execute_script('return performance.now()') / 1000:.1f} s")
    asked = page.execute_script("return [...state.points.values()].map(point => point.asked)")
    assert asked == [500] * 15


@pytest.mark.slow
@in_a_browser
def test_switching(page):
    """Colour changes the first answer only; averaging leaves nothing that colour could change; in
    the other world and with copies the curve is another."""
    click(page, "#colour [value=green]")
    assert [answer for _, answer, _ in cards(page)] == ["5–9", "0–4", "0–4"]
    click(page, "#average")
    assert {(kind, mark) for kind, _, mark in cards(page)} == {("averaged", TEXT["en"]["averaged"])}
    shares = "return [...document.querySelectorAll('.share')].map(s => s.textContent).join()"
    averaged = page.execute_script(shares)
    click(page, "#average")
    plain = page.execute_script(shares)
    click(page, "#world [value=training]")
    assert len({averaged, plain, page.execute_script(shares)}) == 3
    shown = page.find_element(By.ID, "tile").screenshot_as_base64
    click(page, "#copies")
    assert page.find_element(By.ID, "tile").screenshot_as_base64 != shown
    answers = page.execute_script("return state.answers.join()")
    click(page, "#wires")
    assert page.execute_script("return state.answers.join()") != answers


@pytest.mark.slow
@in_a_browser
def test_sliding_and_another_chip(page):
    """By keyboard; at a higher rate the same devices are stuck and more, on another chip others."""
    slider = page.find_element(By.ID, "rate")
    slider.send_keys(Keys.END)
    settled(page)
    assert page.find_element(By.ID, "percent").text == "50%"
    tiles = [compute(page, f"{{ ...chip(), rate: {rate} }}")[1] for rate in (0, 0.1, 0.5)]
    used, lit = tiles[0] > 0, [tile == 255 for tile in tiles]
    assert not lit[0].any() and (lit[1] <= lit[2]).all() and used.sum() == 128 * 64
    for rate, stuck in zip((0.1, 0.5), lit[1:], strict=True):
        assert abs(stuck[used].mean() - rate) < 0.02
    assert f"{lit[2].sum()} " in page.find_element(By.ID, "lit").text
    assert (compute(page, "{ ...chip(), copies: true }")[1] > 0).all()
    click(page, "#another")
    assert "2" in page.find_element(By.ID, "number").text
    other = compute(page, "chip()")[1] == 255
    assert 0.2 < (other & lit[2]).sum() / lit[2].sum() < 0.8


@pytest.mark.slow
@in_a_browser
def test_drawing(page):
    """A stroke becomes a digit of MNIST's size, is answered at once, and can be cleared."""
    before = page.execute_script("return state.answers.join()")
    actions = ActionChains(page)
    actions.move_to_element_with_offset(page.find_element(By.ID, "pad"), 60, -100)
    actions.click_and_hold().move_by_offset(-20, 60).move_by_offset(-10, 60).release().perform()
    settled(page)
    image = np.array(page.execute_script("return [...state.image]")).reshape(28, 28)
    lines, columns = np.nonzero(image > 40)
    assert 19 <= np.ptp(lines) + 1 <= 23 and image.max() > 200
    assert abs(lines.mean() - 13.5) < 1.5 and abs(columns.mean() - 13.5) < 1.5
    assert page.execute_script("return state.answers.join()") != before
    seconds = page.execute_async_script(
        "const t = performance.now(); compute({ images: [state.image], chip: chip() })"
        ".then(() => arguments[0]((performance.now() - t) / 1000))"
    )
    print(f"an answer: {1000 * seconds:.0f} ms")
    assert seconds < MOST_SECONDS["answer"]
    click(page, "#clear")
    assert {answer for _, answer, _ in cards(page)} == {"?"}
    page.find_element(By.CSS_SELECTOR, "#row button:nth-child(8)").send_keys(Keys.ENTER)
    settled(page)
    seven = "digits.subarray(784 * facts.row[7], 784 * (facts.row[7] + 1))"
    assert page.execute_script(f"return state.image.join() === {seven}.join()")
    assert "?" not in {answer for _, answer, _ in cards(page)}


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_fits(page, language):
    """Three sizes without overflow; on a projector nothing has to be scrolled."""
    if language == "zh":
        click(page, "#language")
        assert page.execute_script("return document.documentElement.lang") == "zh"
    shown = page.find_element(By.TAG_NAME, "body").text
    assert "undefined" not in shown and "{" not in shown
    assert bool(re.search(r"[\u3400-\u9fff]{4}", shown)) == (language == "zh")
    beyond = """
    const wide = [...document.querySelectorAll("main *, header *, footer *")].filter(node =>
        node.closest("svg") === null && !node.classList.contains("unseen")
        && node.getBoundingClientRect().right > innerWidth + 1);
    const { scrollWidth, scrollHeight } = document.documentElement;
    return [wide.map(node => node.outerHTML.slice(0, 80)), scrollWidth, scrollHeight];
    """
    for width, height in SIZES:
        resize(page, width, height)
        wide, scroll_width, scroll_height = page.execute_script(beyond)
        assert wide == [] and scroll_width <= width
        assert scroll_height <= height or width < 600


@pytest.mark.slow
@in_a_browser
def test_for_people(page):
    """Every text has a contrast of 4.5 to 1 at least, every control and picture a name, and who
    wants no motion gets none."""
    contrasts = """
    const light = css => css.match(/[\\d.]+/g).slice(0, 3).map(n => n / 255)
        .map(n => n <= .03928 ? n / 12.92 : ((n + .055) / 1.055) ** 2.4)
        .reduce((sum, n, i) => sum + n * [.2126, .7152, .0722][i], 0);
    const written = [...document.querySelectorAll("body *")].filter(node => node.checkVisibility()
        && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()));
    return written.map(node => {
        const solid = node => !getComputedStyle(node).backgroundColor.startsWith("rgba");
        let back = node.id === "hint" ? document.querySelector("#pad") : node;
        while (back !== document.documentElement && !solid(back)) back = back.parentElement;
        const { fill, color } = getComputedStyle(node);
        const both = [node.closest("svg") ? fill : color, getComputedStyle(back).backgroundColor];
        const [dark, bright] = both.map(light).sort((a, b) => a - b);
        return [(bright + .05) / (dark + .05), node.outerHTML.slice(0, 80)];
    });
    """
    found = page.execute_script(contrasts)
    assert len(found) > 40 and [row for row in found if row[0] < 4.5] == []
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "radio", "checkbox", "slider", "image", "img")
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert len(named) > 20 and [role for role, name in named if not name] == []
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": still})
    duration = "return getComputedStyle(document.querySelector('.track i')).transitionDuration"
    assert page.execute_script(duration) == "0s"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.slow
@in_a_browser
def test_old_browsers_get_a_sentence(driver):
    """Whoever cannot run it is told so, in both languages, and sees nothing else."""
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(build.PAGE.as_uri())
    shown = driver.find_element(By.TAG_NAME, "body").text
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert shown.startswith("This page needs") and "请" in shown and len(shown.splitlines()) == 1
