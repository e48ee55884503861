"""The token viewer in a browser: what it tells, what it is asked, what it must not do."""

from __future__ import annotations

import math
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from thr_probe.analysis.token_classes import read_scheme
from thr_probe.report.tokens.viewer import view_page
from thr_probe.traces import read_run, write_tokens

HOSTILE = "</script><script>document.title='acted'</script><img src=x onerror=alert(1)>"
TOKENS = {
    1: b" so",
    2: b" maximum",
    3: b"\n\t",
    4: b"\xf0\x9f",
    5: b"\x98\x80",
    6: b"<script>alert(1)</script>",
    7: b"</script>",
    8: b"\x1b\xff",
    9: b"7",
}
TAU = 0.5
THR = [0.12344, -1.25, 0.5, 0.50001, 4.0, -0.0061, 3e-7, -0.9, 12345.6]
ENTROPY = [0.0, 1.23456, 0.0123456, 2e-5, 3.5, 0.5, 0.25, 10.125, 0.1]
LOGPROB = [-0.0001, -2.3456, -0.5, -12.25, -1.0, -0.25, -3.0, -0.75, -0.03125]


def completion(correct, turn=0, **more):
    order = [(i + turn) % 9 for i in range(9)]
    columns = {"token_ids": list(range(1, 10)), "correct": correct, "extracted": "7"}
    columns["thr"] = np.float32([THR[i] for i in order]).tolist()
    columns["thr_self"] = np.float32([THR[i] / 3 for i in order]).tolist()
    columns["thr_within"] = np.float32([-THR[i] / 7 for i in order]).tolist()
    columns["thr_error"] = np.float32([abs(THR[i]) / 1e4 for i in order]).tolist()
    columns["entropy"] = np.float32([ENTROPY[i] for i in order]).tolist()
    columns["logprob"] = np.float32([LOGPROB[i] for i in order]).tolist()
    return columns | more


def undefined(correct=False):
    return completion(correct, thr=None, thr_self=None, thr_within=None, thr_error=None)


GROUPS = [
    {
        "prompt_id": "mixed",
        "question": f"What is {HOSTILE}?",
        "answer": "seven",
        "tau": TAU,
        "completions": [completion(True), completion(False, 1), completion(False, 2)],
    },
    {
        "prompt_id": "none",
        "question": "nobody knows",
        "tau": None,
        "completions": [undefined(), undefined()],
    },
    {
        "prompt_id": "every",
        "question": "everybody knows",
        "tau": -0.25,
        "completions": [completion(True, 3, thr=[0.1] * 9), completion(True, 4)],
    },
]


@pytest.fixture(scope="module")
def run_path(make_run, tmp_path_factory):
    path = make_run(tmp_path_factory.mktemp("run") / "run", GROUPS)
    write_tokens(
        path,
        [
            {"token_id": i, "bytes": data, "text": data.decode(errors="replace")}
            for i, data in TOKENS.items()
        ],
    )
    return path


@pytest.fixture(scope="module")
def page_file(run_path):
    view_page(read_run(run_path), run_path.parent / "view.html")
    return run_path.parent / "view.html"


class Viewer:
    """A tab with the viewer, and what it said and asked for."""

    def __init__(self, browser, file, **context):
        self._context = browser.new_context(
            **({"viewport": {"width": 1280, "height": 800}} | context)
        )
        self.file, self.page = file, self._context.new_page()
        self.messages, self.requests = [], []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.open()

    def open(self, address=""):
        self.page.goto("about:blank")
        self.page.goto(self.file.as_uri() + address)
        self.settle()

    def settle(self):
        self.page.wait_for_selector("#tv[data-ready]")
        frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.page.evaluate(frames)

    def choose(self, prompt):
        at = [group["prompt_id"] for group in GROUPS].index(prompt)
        self.page.click(f'#tv-list button[data-group="{at}"]')
        self.page.wait_for_selector(f'#tv[data-ready="{at}"]')
        self.page.wait_for_selector(".tv-text span[data-at]")
        self.settle()

    def slide(self, name, value):
        script = "(node, value) => {node.value = value; node.dispatchEvent(new Event('input'))}"
        self.page.eval_on_selector(f"#tv-{name}", script, value)
        self.settle()

    def span(self, number, piece):
        return self.page.locator(f".tv-c:nth-child({number + 1}) .tv-text span[data-at='{piece}']")

    def card(self, number, piece):
        """The card's rows: name and the values of the piece's tokens."""
        self.span(number, piece).hover()
        rows = self.page.eval_on_selector_all(
            "#tv-card tr", "all => all.map(row => [...row.children].map(cell => cell.textContent))"
        )
        return {name: values for name, *values in rows}

    def colour(self, number, piece):
        return self.span(number, piece).evaluate("node => node.style.backgroundColor")

    def background(self):
        script = "node => getComputedStyle(node).backgroundColor"
        return self.page.eval_on_selector("#tv", script)

    def texts(self, selector):
        return self.page.eval_on_selector_all(selector, "all => all.map(one => one.textContent)")

    @property
    def state(self):
        return {key: value for key, [value] in parse_qs(urlsplit(self.page.url).fragment).items()}

    def close(self):
        self._context.close()


@pytest.fixture(scope="module")
def tab(browser, page_file):
    opened = Viewer(browser, page_file)
    yield opened
    opened.close()


@pytest.fixture
def viewer(tab):
    """The one tab, opened anew."""
    tab.open()
    return tab


def piece_of(token):
    """Tokens 3 and 4 are one piece."""
    return token if token < 4 else token - 1


def rgb(colour):
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def number(text):
    return math.nan if text == "–" else float(text)


def effective_advantage(thr, tau, c, p, advantage):
    """Equation 5, literally."""
    if not abs(thr) > c * tau:
        return 0.0
    sign = 1 if thr > 0 else -1 if thr < 0 else 0
    return (1 + sign * p) * advantage


def test_nothing_is_fetched_nothing_complains_and_nothing_acts(viewer):
    assert viewer.messages == []
    assert {url.partition("#")[0] for url in viewer.requests} <= {
        viewer.file.as_uri(),
        "about:blank",
        "data:,",
    }
    assert viewer.page.title() == "run: tokens"
    assert viewer.page.text_content("#tv-question") == GROUPS[0]["question"]
    assert viewer.page.evaluate("document.querySelectorAll('img').length") == 0
    assert viewer.span(0, 4).text_content() == "<script>alert(1)</script>"
    assert viewer.span(0, 5).text_content() == "</script>"


def test_the_card_tells_the_numbers_of_the_trace(viewer):
    advantages = [math.sqrt(2), -math.sqrt(0.5), -math.sqrt(0.5)]
    for row in range(3):
        for token in (0, 1, 2, 5, 7, 8):
            at = (token + row) % 9
            card = viewer.card(row, piece_of(token))
            [thr] = np.float32([THR[at]]).tolist()
            [entropy, logprob] = np.float32([ENTROPY[at], LOGPROB[at]]).tolist()
            assert card["id"] == [str(token + 1)]
            assert card["position, from 0"] == [str(token)]
            assert number(card["THR"][0]) == float(f"{thr:.4g}")
            assert number(card["THR / τ"][0]) == float(f"{thr / TAU:.4g}")
            own, within = np.float32([THR[at] / 3, -THR[at] / 7]).tolist()
            assert number(card["THR from itself"][0]) == float(f"{own:.4g}")
            assert number(card["THR from its completion"][0]) == float(f"{within:.4g}")
            [error] = np.float32([abs(THR[at]) / 1e4]).tolist()
            assert number(card["error of THR at most"][0]) == float(f"{error:.2g}")
            assert number(card["entropy, nats"][0]) == round(float(f"{entropy:.4g}"), 5)
            assert number(card["log-probability, nats"][0]) == round(float(f"{logprob:.4g}"), 5)
            assert number(card["probability"][0]) == pytest.approx(math.exp(logprob), rel=2e-3)
            assert card["dominant"] == ["yes" if abs(thr) > TAU else "no"]
            expected = effective_advantage(thr, TAU, 1, 0, advantages[row])
            assert number(card["effective advantage"][0]) == pytest.approx(expected, rel=6e-4)
            text = TOKENS[token + 1].decode(errors="replace")
            assert card["class"] == [read_scheme("lexical").of(text)]


def test_the_sliders_move_the_effective_advantage_and_its_colours(viewer):
    viewer.page.select_option("#tv-colour", "effective")
    before = viewer.colour(0, 1)
    for p, exponent in [("0.6", "0"), ("-0.99", "0.4"), ("0.25", "-2"), ("0", "0.9")]:
        viewer.slide("p", p)
        viewer.slide("c", exponent)
        factor = 10 ** float(exponent)
        for token in (0, 1, 2, 7, 8):
            [thr] = np.float32([THR[token]]).tolist()
            card = viewer.card(0, piece_of(token))
            expected = effective_advantage(thr, TAU, factor, float(p), math.sqrt(2))
            shown = number(card["effective advantage"][0])
            assert shown == pytest.approx(expected, rel=6e-4, abs=1e-12)
            dominant = abs(thr) > factor * TAU
            assert card["dominant"] == ["yes" if dominant else "no"]
            classes = viewer.span(0, piece_of(token)).get_attribute("class") or ""
            assert ("tv-high" in classes) == (dominant and thr > 0)
            assert ("tv-low" in classes) == (dominant and thr < 0)
            assert ("tv-off" in classes) == (not dominant)
            # the strength of the colour is the share of twice the largest advantage
            share = abs(expected) / (2 * math.sqrt(2))
            mixed = [round(255 + (pole - 255) * share) for pole in (0, 158, 115)]
            if share < 0.004:
                assert viewer.colour(0, piece_of(token)) == ""
            else:
                assert rgb(viewer.colour(0, piece_of(token))) == pytest.approx(mixed, abs=1)
    viewer.page.click("#tv-reset")
    viewer.settle()
    assert viewer.colour(0, 1) == before
    assert viewer.page.text_content("#tv-c-value") == "1"


def test_blue_is_exploitation_and_vermilion_exploration_in_light_and_dark(browser, page_file):
    for scheme in ("light", "dark"):
        viewer = Viewer(browser, page_file, color_scheme=scheme)
        viewer.page.select_option("#tv-colour", "ratio")
        viewer.settle()
        # THR / tau of 24691 and, in the second completion, of -2.5
        assert viewer.colour(0, 7) == "rgb(0, 114, 178)"
        red, _, blue = rgb(viewer.colour(1, 0))
        assert red > blue
        back = viewer.background()
        assert (max(rgb(back)) > 200) == (scheme == "light")
        viewer.page.click("#tv-theme")
        viewer.settle()
        assert viewer.state["theme"] == ("dark" if scheme == "light" else "light")
        turned = viewer.page.eval_on_selector(
            "#tv", "node => getComputedStyle(node).backgroundColor"
        )
        assert turned != back
        assert viewer.messages == []
        viewer.close()


def test_characters_over_several_tokens_are_one_piece_with_a_column_each(viewer):
    assert viewer.texts(".tv-c:first-child .tv-text span")[3] == "😀"
    card = viewer.card(0, 3)
    assert card["token"] == ["\\xf0\\x9f", "\\x98\\x80"]
    assert card["id"] == ["4", "5"]
    assert [number(text) for text in card["THR"]] == [float(f"{np.float32(0.50001):.4g}"), 4.0]
    assert viewer.page.text_content("#tv-card p") == "😀 in 2 tokens"
    assert viewer.span(0, 6).text_content() == "\\x1b\\xff"


def test_white_space_is_shown_on_request(viewer):
    assert viewer.span(0, 2).text_content() == "\n\t"
    viewer.page.check("#tv-blanks")
    assert viewer.span(0, 2).text_content() == "⏎\n⇥"
    assert viewer.span(0, 0).text_content().replace("\u200b", "") == "·so"


def test_questions_are_sorted_and_searched(viewer):
    def listed():
        return [
            GROUPS[int(at)]["prompt_id"]
            for at in viewer.page.eval_on_selector_all(
                "#tv-list button", "all => all.map(one => one.dataset.group)"
            )
        ]

    assert listed() == ["mixed", "none", "every"]
    viewer.page.select_option("#tv-sort", "q")
    assert listed() == ["none", "mixed", "every"]
    viewer.page.click("#tv-reverse")
    assert listed() == ["every", "mixed", "none"]
    # undefined comes last, whichever way round
    viewer.page.select_option("#tv-sort", "retained")
    assert listed() == ["every", "mixed", "none"]
    viewer.page.click("#tv-reverse")
    assert listed() == ["mixed", "every", "none"]
    for words, found in [("KNOWS", ["every", "none"]), ("seven", ["mixed"]), ("non", ["none"])]:
        viewer.page.fill("#tv-search", words)
        assert listed() == found
    viewer.page.fill("#tv-search", "nothing has this")
    assert listed() == []
    assert viewer.page.text_content("#tv-count") == "0 of 3 questions"


def test_the_address_brings_the_view_back(viewer):
    viewer.choose("every")
    viewer.choose("mixed")
    viewer.page.select_option("#tv-colour", "ratio")
    viewer.page.select_option("#tv-only", "wrong")
    viewer.slide("p", "-0.3")
    viewer.slide("c", "0.5")
    viewer.page.check("#tv-blanks")
    viewer.page.fill("#tv-search", "what")
    viewer.page.select_option("#tv-sort", "balance")
    viewer.page.click("#tv-reverse")
    viewer.span(1, 4).click()
    state, colours = viewer.state, [viewer.colour(0, at) for at in range(8)]
    assert state == {
        "group": "mixed",
        "colour": "ratio",
        "only": "wrong",
        "p": "-0.3",
        "c": "0.5",
        "blanks": "1",
        "search": "what",
        "sort": "balance",
        "reverse": "1",
        "token": "2.5",
    }
    address = "#" + urlsplit(viewer.page.url).fragment
    viewer.open(address)
    viewer.page.wait_for_selector("#tv-card:not([hidden])")
    assert viewer.state == state
    assert [viewer.colour(0, at) for at in range(8)] == colours
    assert viewer.page.input_value("#tv-p") == "-0.3"
    assert viewer.page.text_content("#tv-c-value") == f"{10**0.5:.3g}"
    assert viewer.texts("#tv-list button b") == [GROUPS[0]["question"]]
    assert viewer.texts(".tv-c header b") == ["#1", "#2"]
    assert viewer.texts("#tv-card td")[3] == "5"


def test_a_strange_address_is_taken_as_far_as_it_goes(viewer):
    viewer.open("#colour=pink&p=7&c=x&group=gone&token=9.9")
    assert viewer.page.input_value("#tv-colour") == "thr"
    assert viewer.page.text_content("#tv-p-value") == "+0.99"
    assert viewer.page.text_content("#tv-c-value") == "1"
    assert viewer.page.text_content("#tv-question") == GROUPS[0]["question"]
    assert viewer.messages == []


def test_keys_go_between_questions_and_tokens(viewer):
    page, press = viewer.page, viewer.page.keyboard.press

    def at():
        return viewer.texts("#tv-card td")[3] if page.is_visible("#tv-card") else None

    press("ArrowRight")
    page.wait_for_selector('#tv[data-ready="1"]')
    assert viewer.state["group"] == "none"
    press("ArrowLeft")
    page.wait_for_selector('#tv[data-ready="0"]')
    page.wait_for_selector(".tv-text span[data-at]")
    press("Enter")
    assert at() == "0"
    press("ArrowRight")
    assert at() == "1"
    press("ArrowDown")
    assert viewer.state["token"] == "1.1"
    press("ArrowUp")
    # 0.5 is not above tau, 0.50001 is
    press("Shift+ArrowRight")
    assert viewer.state["token"] == "0.3"
    press("End")
    assert viewer.state["token"] == "0.8"
    press("Escape")
    assert at() is None
    assert "token" not in viewer.state
    press("/")
    page.keyboard.type("everybody")
    assert viewer.texts("#tv-list button b") == ["everybody knows"]
    press("Escape")
    press("?")
    assert page.is_visible("#tv-help")
    press("Escape")
    assert not page.is_visible("#tv-help")


def test_the_card_comes_by_tab_and_by_tap_too(browser, page_file, viewer):
    viewer.page.focus("#tv-help-open")
    viewer.page.keyboard.press("Tab")
    assert viewer.page.is_visible("#tv-card")
    assert viewer.state["token"] == "0.0"
    phone = Viewer(browser, page_file, viewport={"width": 390, "height": 844}, has_touch=True)
    phone.span(0, 1).tap()
    assert phone.page.is_visible("#tv-card")
    box = phone.page.locator("#tv-card").bounding_box()
    assert box["y"] + box["height"] <= 844
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    phone.page.locator(".tv-c header").first.tap()
    assert not phone.page.is_visible("#tv-card")
    phone.close()


def test_a_question_without_a_correct_completion_says_that_thr_is_undefined(viewer):
    viewer.choose("none")
    assert "THR, τ and Equation 5 are undefined" in viewer.page.text_content(".tv-warn")
    card = viewer.card(0, 0)
    assert card["THR"] == ["undefined"]
    assert card["THR / τ"] == card["effective advantage"] == ["–"]
    assert "dominant" not in card
    assert {viewer.colour(0, at) for at in range(8)} == {""}
    viewer.page.select_option("#tv-colour", "entropy")
    viewer.settle()
    assert viewer.colour(0, 3) != ""
    assert viewer.messages == []


def test_a_question_with_only_correct_completions_says_that_nothing_is_learnt(viewer):
    viewer.choose("every")
    told = viewer.page.text_content(".tv-warn")
    assert "all advantages are 0" in told
    assert "τ is not above 0" in told
    card = viewer.card(1, 0)
    assert card["THR / τ"] == ["–"]
    assert card["dominant"] == ["yes"]
    assert number(card["effective advantage"][0]) == 0
    viewer.page.select_option("#tv-only", "wrong")
    assert viewer.page.text_content("#tv-grid") == "No completion is incorrect."


def test_one_question_alone_and_what_was_left_out(browser, run_path, tmp_path):
    view_page(read_run(run_path), tmp_path / "one.html", prompts=["every"])
    viewer = Viewer(browser, tmp_path / "one.html")
    assert viewer.page.text_content("#tv-count") == "1 question"
    assert viewer.page.locator(".tv-notice:visible").count() == 0
    assert viewer.messages == []
    viewer.close()
    fragment = view_page(read_run(run_path), tmp_path / "some.html", max_tokens=30)
    viewer = Viewer(browser, tmp_path / "some.html")
    assert viewer.page.text_content("[role=note]") == fragment.notice
    assert "the first 1 of 3 questions" in fragment.notice
    viewer.close()


def test_the_view_is_saved_as_svg(viewer, tmp_path):
    with viewer.page.expect_download() as download:
        viewer.page.click("#tv-svg")
    assert download.value.suggested_filename == "run-mixed-thr.svg"
    download.value.save_as(tmp_path / "view.svg")
    viewer.page.goto((tmp_path / "view.svg").as_uri())
    texts = viewer.texts("text")
    assert "</script>" in "".join(texts)
    assert viewer.page.evaluate("document.documentElement.tagName") == "svg"
    assert viewer.page.evaluate("document.querySelectorAll('script, img').length") == 0
    fills = viewer.page.eval_on_selector_all("rect", "all => all.map(r => r.getAttribute('fill'))")
    assert "rgb(0, 114, 178)" in fills


def test_paper_is_light_whole_and_without_controls(browser, page_file):
    viewer = Viewer(browser, page_file, color_scheme="dark", viewport={"width": 800, "height": 300})
    viewer.page.emulate_media(media="print")
    viewer.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    viewer.settle()
    assert not viewer.page.is_visible(".tv-controls")
    assert not viewer.page.is_visible(".tv-side")
    assert len(viewer.texts(".tv-text span[data-at]")) == 3 * 8
    assert not viewer.page.evaluate("document.getElementById('tv').hasAttribute('data-dark')")
    viewer.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert viewer.page.evaluate("document.getElementById('tv').hasAttribute('data-dark')")
    assert len(viewer.page.pdf()) > 5000
    viewer.close()


def test_what_is_scrolled_to_has_the_colours_of_the_sliders(browser, make_run, tmp_path):
    many = [completion(turn % 2 == 0, turn) for turn in range(40)]
    groups = [{"prompt_id": "many", "tau": TAU, "completions": many}]
    path = make_run(tmp_path / "run", groups, tokens={i: f" {i}" for i in range(1, 10)})
    view_page(read_run(path), tmp_path / "many.html")
    viewer = Viewer(browser, tmp_path / "many.html", viewport={"width": 400, "height": 400})
    far = viewer.page.locator(".tv-c").nth(38)
    assert far.locator("span[data-at]").count() == 0
    far.scroll_into_view_if_needed()
    viewer.page.wait_for_selector(".tv-c:nth-child(39) span[data-at]")
    before = viewer.span(38, 6).evaluate("node => node.style.backgroundColor")
    viewer.page.locator(".tv-c").first.scroll_into_view_if_needed()
    viewer.settle()
    viewer.page.select_option("#tv-colour", "effective")
    viewer.slide("p", "0.5")
    far.scroll_into_view_if_needed()
    viewer.page.wait_for_timeout(200)
    # 38 turns of 9: its token 6 has THR[8] and counts one and a half times
    share = 1.5 / 2
    mixed = [255 + (pole - 255) * share for pole in (0, 158, 115)]
    assert viewer.colour(38, 6) != before
    assert rgb(viewer.colour(38, 6)) == pytest.approx(mixed, abs=1)
    viewer.close()
