"""The report's page in a real browser: headless Chromium, driven by its own driver."""

import json
import shutil
import unicodedata
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from llm_experiment.page.data import report_data
from llm_experiment.page.page import page
from llm_experiment.records.folder import AGENTS, BASE, RESULT_FILE
from llm_experiment.records.reading import read_run
from tests.llm_experiment.fakes.report_run import (
    HOSTILE_TEXTS,
    LENGTHS,
    N_EPISODES,
    load,
    settings,
    write_run,
)

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs chromium and chromedriver (Debian: apt install chromium chromium-driver)",
    ),
]
SECONDS = 20
DESKTOP, PHONE = (1280, 900), (390, 800)
FIRST = "exact-budget3-seed0"
"""The agent that a page begins with: the main variant at its largest budget."""
LEVELS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
LEAST_CONTRAST = 4.5
"""Of text, by WCAG 2.2, level AA."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("browser") / "run", settings())


@pytest.fixture(scope="module")
def url(folder):
    return write_page(folder, read_run(folder))


def write_page(folder, run):
    path = folder / "page.html"
    path.write_text(
        page(report_data(run, [t.encode() for t in HOSTILE_TEXTS], n_episodes=3)), encoding="utf-8"
    )
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # The tests may run as root and in a container; the page is our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, url):
    """Open the page at a fragment, in a window of some size and theme."""

    def open_page(address=url, *, size=DESKTOP, theme="light", **fragment):
        width, height = size
        browser.get("about:blank")
        browser.get_log("browser")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": width,
                "height": height,
                "deviceScaleFactor": 1,
                "mobile": size == PHONE,
            },
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": theme}]},
        )
        browser.get(f"{address}#{urlencode(fragment)}" if fragment else address)
        return browser

    return open_page


def until(browser, condition):
    """Wait for a condition; what it returned."""
    return WebDriverWait(browser, SECONDS).until(condition)


def pane(browser, which="agent"):
    return until(browser, lambda b: b.find_element(By.CSS_SELECTOR, f".pane.{which} .turns"))


def token(browser, i, which="agent"):
    pane(browser, which)
    return browser.find_element(By.CSS_SELECTOR, f".pane.{which} .token[data-i='{i}']")


def texts(browser, which="agent"):
    """The texts of all tokens of a pane, as the page holds them."""
    pane(browser, which)
    return browser.execute_script(
        "return [...document.querySelectorAll(`.pane.${arguments[0]} .turns .token`)]"
        ".map((token) => token.textContent)",
        which,
    )


def visible(text):
    """A text with line breaks as signs and characters without a picture by their names."""
    shown = ""
    for char in text:
        if char == "\n":
            shown += "⏎"
        elif unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}:
            shown += f"⟨U+{ord(char):04X}⟩"
        else:
            shown += char
    return shown


def expected_texts(folder, n_tokens, episode):
    tokens = load(folder, n_tokens)["tokens"][episode]
    return [visible(HOSTILE_TEXTS[token]) for token in tokens]


def agent_tokens(arrays, episode):
    """Indices of the tokens that the agent wrote after the prompt."""
    played = np.arange(arrays["tokens"].shape[1]) >= arrays["prompt_length"]
    return np.flatnonzero(played & (arrays["writers"][episode] == 0)).tolist()


def read_numbers(browser):
    """The readout: numbers by name."""
    until(browser, lambda b: b.find_element(By.ID, "readout").is_displayed())
    cells = browser.execute_script(
        "return [...document.querySelectorAll('#readout dd')]"
        ".map((cell) => [cell.dataset.name, cell.textContent])"
    )
    signs = str.maketrans({"−": "-", "∞": "inf"})
    return {name: float(text.translate(signs)) for name, text in cells}


def fragment(browser):
    found = parse_qs(urlsplit(browser.current_url).fragment)
    return {name: values[0] for name, values in found.items()}


def errors(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]


def choose(browser, facet, text):
    """Choose a value of a filter by its label."""
    (label,) = (
        label
        for label in browser.find_elements(By.CSS_SELECTOR, f"#filter-{facet} label")
        if label.text == text
    )
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", label)
    label.click()


def assert_shows(browser, folder, *, agent, length, episode):
    """The agent's pane holds exactly that episode."""
    expected = expected_texts(folder / AGENTS / agent, length, episode)
    until(browser, lambda b: texts(b) == expected)
    address = fragment(browser)
    if "agent" in address:  # from the first choice on
        wanted = {"agent": agent, "length": str(length), "episode": str(episode)}
        assert address.items() >= wanted.items()


# ----------------------------------------------------------------- safety


def test_a_page_of_hostile_texts_loads_without_errors_and_runs_none_of_them(show, folder):
    browser = show()
    assert_shows(browser, folder, agent=FIRST, length=LENGTHS[0], episode=0)
    assert errors(browser) == []
    assert browser.execute_script("return document.body.dataset.hacked") is None
    types = browser.execute_script("return [...document.scripts].map(script => script.type)")
    n_data = types.count("application/json") + types.count("text/plain")
    assert len(types) - n_data == 1  # the page's own code, and no other
    assert browser.find_elements(By.CSS_SELECTOR, "img, iframe, object, embed") == []


def test_a_transcript_with_markup_stays_text(show, folder):
    browser = show()
    seen = set()
    for episode in range(3):
        for which, path in (("agent", folder / AGENTS / FIRST), ("beside", folder / BASE)):
            expected = expected_texts(path, LENGTHS[0], episode)
            until(browser, lambda b, w=which, e=expected: texts(b, w) == e)
            seen |= set(expected)
        browser.find_element(By.CSS_SELECTOR, "[aria-label='next episode']").click()
    assert {visible(text) for text in HOSTILE_TEXTS} == seen
    assert any("<img src=x onerror" in text for text in seen)
    assert browser.execute_script("return document.querySelectorAll('.token *').length") == 0
    assert errors(browser) == []


def test_names_and_labels_of_a_run_stay_text(show, folder, tmp_path):
    hostile = "</script><img src=x onerror=document.body.dataset.hacked=1>"
    run = shutil.copytree(folder, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["label"] = manifest["settings"]["agent"]["world"]["agent_name"] = hostile.replace(
        ":", ""
    )
    manifest["models"] = {hostile: hostile}
    manifest["starts"][-1]["machine"] = hostile
    (run / "manifest.json").write_text(json.dumps(manifest))
    browser = show(write_page(run, read_run(run)))
    pane(browser)
    assert browser.find_element(By.ID, "label").text == hostile
    assert browser.execute_script("return document.body.dataset.hacked") is None
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert errors(browser) == []


def test_markup_that_did_get_in_could_neither_run_nor_reach_the_network(show):
    browser = show()
    pane(browser)
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    blocked = browser.execute_async_script(
        """
        const done = arguments[0];
        const blocked = new Set();
        addEventListener("securitypolicyviolation", (event) => {
          blocked.add(event.effectiveDirective);
          if (blocked.size === 4) done([...blocked].sort());
        });
        document.body.insertAdjacentHTML("beforeend",
          "<img src='http://localhost/x.png' onerror='document.body.dataset.hacked = 1'>"
          + "<p style='color: red'></p>");
        fetch("http://localhost/x").catch(() => {});
        """
    )
    assert blocked == ["connect-src", "img-src", "script-src-attr", "style-src-attr"]
    assert browser.execute_script("return document.body.dataset.hacked") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent": "</script>", "episode": "-1", "token": "x"},
        {"agent": "constructor", "length": "7", "beside": "toString", "colour": "valueOf"},
        {"agent": FIRST, "episode": "99", "token": "99"},
    ],
)
def test_an_address_that_names_nothing_is_the_first_page(show, folder, wrong):
    browser = show(**wrong)
    episode = 2 if wrong.get("episode") == "99" else 0
    expected = expected_texts(folder / AGENTS / FIRST, LENGTHS[0], episode)
    until(browser, lambda b: texts(b) == expected)
    assert errors(browser) == []


# ----------------------------------------------------------------- numbers


def test_hovering_shows_the_numbers_of_that_token(show, folder):
    browser = show(episode=1)
    arrays = load(folder / AGENTS / FIRST, LENGTHS[0])
    assert_shows(browser, folder, agent=FIRST, length=LENGTHS[0], episode=1)
    names = ("kl_nats", "log_ratio_nats", "log_probs", "budget_nats", "target_nats")
    for i in agent_tokens(arrays, 1)[:4]:
        element = token(browser, i)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(browser).move_to_element(element).perform()
        title = f"Teacher, token {i}"
        until(browser, lambda b, t=title: t in b.find_element(By.ID, "readout").text)
        numbers = read_numbers(browser)
        for name in (*names, "rewards"):
            assert numbers[name] == pytest.approx(arrays[name][1, i], rel=1e-3, abs=1e-12), name
        surprise = arrays["log_ratio_nats"][1, i] - arrays["log_probs"][1, i]
        assert numbers["surprise_nats"] == pytest.approx(surprise, rel=2e-3)


def test_a_token_that_the_agent_did_not_write_has_no_number_of_the_agent(show, folder):
    browser = show()
    arrays = load(folder / AGENTS / FIRST, LENGTHS[0])
    (*_, i) = np.flatnonzero(arrays["writers"][0] == 1)
    pane(browser)
    token(browser, i).click()
    assert set(read_numbers(browser)) == {"budget_nats"}
    assert "Student" in browser.find_element(By.ID, "readout").text


def test_a_tokens_colour_is_the_level_of_its_cost(show, folder):
    arrays = load(folder / AGENTS / FIRST, LENGTHS[0])
    surprise = arrays["log_ratio_nats"] - arrays["log_probs"]
    for colour, nats in (("kl_nats", arrays["kl_nats"]), ("surprise_nats", surprise)):
        browser = show(colour=colour)
        pane(browser)
        own = agent_tokens(arrays, 0)
        expected = [
            sum(nats[0, i] >= least for least in LEVELS) if i in own else 0
            for i in range(LENGTHS[0])
        ]
        classes = browser.execute_script(
            "return [...document.querySelectorAll('.pane.agent .turns .token')]"
            ".map((token) => [...token.classList].filter((name) => /^k[0-9]$/.test(name)))"
        )
        assert classes == [[f"k{level}"] for level in expected]


def test_the_charts_show_every_agent(show):
    browser = show()
    pane(browser)
    dots = browser.find_elements(By.CSS_SELECTOR, "#silence .dot")
    assert len(dots) == 5  # the one without a budget has no place on the axis
    lines = browser.find_elements(By.CSS_SELECTOR, "#training .series .line")
    assert len(lines) == 4 * 6
    until(browser, lambda b: len(b.find_elements(By.CSS_SELECTOR, "#left .series .line")) == 2)


def test_an_agent_without_a_budget_has_none_to_draw(show):
    browser = show(agent="unconstrained-seed0")
    pane(browser)
    until(browser, lambda b: b.find_element(By.ID, "left").text == "This agent has no budget.")
    assert errors(browser) == []


# ----------------------------------------------------------------- the choice


def test_filters_choose_what_is_shown(show, folder):
    browser = show()
    short, long = LENGTHS
    assert_shows(browser, folder, agent=FIRST, length=short, episode=0)
    choose(browser, "seed", "1")
    assert_shows(browser, folder, agent="exact-budget3-seed1", length=short, episode=0)
    choose(browser, "budget", "1")
    assert_shows(browser, folder, agent="exact-budget1-seed1", length=short, episode=0)
    choose(browser, "length", str(long))
    assert_shows(browser, folder, agent="exact-budget1-seed1", length=long, episode=0)
    field = browser.find_element(By.ID, "episode")
    field.clear()
    field.send_keys("2", Keys.TAB)
    assert_shows(browser, folder, agent="exact-budget1-seed1", length=long, episode=2)
    choose(browser, "variant", "realized budget")
    assert_shows(browser, folder, agent="realized-budget3-seed0", length=long, episode=2)
    choose(browser, "variant", "no constraint")
    assert_shows(browser, folder, agent="unconstrained-seed0", length=long, episode=2)
    assert errors(browser) == []


def test_filters_do_not_offer_what_was_not_run(show):
    browser = show(agent="realized-budget3-seed0")
    pane(browser)
    inputs = {
        facet: {
            label.text: label.find_element(By.TAG_NAME, "input").is_enabled()
            for label in browser.find_elements(By.CSS_SELECTOR, f"#filter-{facet} label")
        }
        for facet in ("variant", "budget", "seed", "length")
    }
    assert inputs == {
        "variant": {"exact budget": True, "realized budget": True, "no constraint": True},
        "budget": {"1": False, "3": True, "none": False},
        "seed": {"0": True, "1": False},
        "length": {str(length): True for length in LENGTHS},
    }


def test_the_base_policy_stands_beside_until_another_is_chosen(show, folder):
    browser = show(episode=1)
    expected = expected_texts(folder / BASE, LENGTHS[0], 1)
    until(browser, lambda b: texts(b, "beside") == expected)
    Select(browser.find_element(By.ID, "beside")).select_by_value("exact-budget1-seed1")
    other = expected_texts(folder / AGENTS / "exact-budget1-seed1", LENGTHS[0], 1)
    until(browser, lambda b: texts(b, "beside") == other)
    assert_shows(browser, folder, agent=FIRST, length=LENGTHS[0], episode=1)
    assert fragment(browser)["beside"] == "exact-budget1-seed1"


def test_an_address_opens_what_it_was_copied_from(show, folder):
    name = "exact-budget1-seed1"
    arrays = load(folder / AGENTS / name, LENGTHS[1])
    i = agent_tokens(arrays, 2)[1]
    browser = show(agent=name, length=LENGTHS[1], episode=2, token=i)
    assert_shows(browser, folder, agent=name, length=LENGTHS[1], episode=2)
    assert read_numbers(browser)["kl_nats"] == pytest.approx(arrays["kl_nats"][2, i], rel=1e-3)
    assert browser.switch_to.active_element.get_attribute("data-i") == str(i)


def test_keys_walk_along_tokens_turns_costs_and_episodes(show, folder):
    browser = show()
    arrays = load(folder / AGENTS / FIRST, LENGTHS[0])
    start = agent_tokens(arrays, 0)[0]
    pane(browser)
    token(browser, start).click()

    def press(*keys):
        ActionChains(browser).send_keys(*keys).perform()
        return int(browser.switch_to.active_element.get_attribute("data-i"))

    assert press(Keys.ARROW_RIGHT) == start + 1
    assert press(Keys.ARROW_LEFT, Keys.ARROW_LEFT) == start - 1
    assert press(Keys.END) == LENGTHS[0] - 1
    assert press(Keys.HOME) == 0
    writers = arrays["writers"][0]
    turns = [i for i in range(1, LENGTHS[0]) if writers[i] != writers[i - 1]]
    assert press(Keys.ARROW_DOWN) == turns[0]
    assert press(Keys.ARROW_DOWN) == turns[1]
    assert press(Keys.ARROW_UP) == turns[0]
    by_cost = sorted(agent_tokens(arrays, 0), key=lambda i: -arrays["kl_nats"][0, i])
    assert [press("c"), press("c"), press("c"), press("c")] == [*by_cost[:3], by_cost[0]]
    assert fragment(browser)["token"] == str(by_cost[0])
    ActionChains(browser).send_keys("j", "j", "k").perform()
    assert_shows(browser, folder, agent=FIRST, length=LENGTHS[0], episode=1)


def test_a_point_of_a_chart_chooses_its_agent(show, folder):
    browser = show()
    pane(browser)
    browser.execute_script("document.getElementById('left').scrollIntoView({block: 'center'})")
    line = until(browser, lambda b: b.find_element(By.CSS_SELECTOR, "#left .series:not(.bold)"))
    ActionChains(browser).move_to_element(line).click().perform()
    assert_shows(browser, folder, agent="exact-budget1-seed0", length=LENGTHS[0], episode=0)


# ----------------------------------------------------------------- looks


@pytest.mark.parametrize("size", [DESKTOP, PHONE, (320, 700)])
def test_nothing_is_wider_than_the_window(show, size):
    browser = show(size=size)
    pane(browser)
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def relative_luminance(colour):
    """Of an `rgb(...)` colour, by WCAG 2.2."""
    channels = [float(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_scale_is_readable_and_ordered_in_grey(show, theme):
    browser = show(theme=theme)
    pane(browser)
    colours = browser.execute_script(
        "return [...document.querySelectorAll('.steps li')].map(getComputedStyle)"
        ".map((style) => [style.color, style.backgroundColor])"
    )
    assert len(colours) == len(LEVELS)
    lightness = []
    for text, back in colours:
        low, high = sorted([relative_luminance(text), relative_luminance(back)])
        assert (high + 0.05) / (low + 0.05) >= LEAST_CONTRAST
        lightness.append(relative_luminance(back))
    assert lightness == sorted(lightness, reverse=theme == "light")


def test_a_button_changes_the_theme(show):
    browser = show(theme="light")
    background = "return getComputedStyle(document.documentElement).backgroundColor"
    light = browser.execute_script(background)
    assert relative_luminance(light) > 0.8
    browser.find_element(By.ID, "theme").click()
    assert relative_luminance(browser.execute_script(background)) < 0.1
    browser.find_element(By.ID, "theme").click()
    assert browser.execute_script(background) == light


# ----------------------------------------------------------------- unfinished runs


def test_runs_without_a_base_policy_or_without_any_evaluation_have_pages(show, folder, tmp_path):
    run = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(run / BASE)
    browser = show(write_page(run, read_run(run)))
    pane(browser)
    assert "unfinished" in browser.find_element(By.ID, "label").text
    assert errors(browser) == []
    for path in run.rglob(RESULT_FILE):
        path.unlink()
    browser = show(write_page(run, read_run(run)))
    until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "#training .line"))
    assert not browser.find_element(By.ID, "transcripts").is_displayed()
    assert errors(browser) == []


def test_the_page_shows_no_more_episodes_than_were_asked_for(show):
    browser = show()
    pane(browser)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".episode-bars button")) == 3 < N_EPISODES
    assert f"the first 3 of {N_EPISODES}" in browser.find_element(By.ID, "episodes").text
