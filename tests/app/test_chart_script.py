"""What the browser works out for itself, in a real browser: no dashboard behind it."""

from typing import Any

from playwright.sync_api import Browser

from app.live import STATIC

RUN = """async ([source, held]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  return module.outline(held);
}"""


def outline(browser: Browser, held: dict[str, list[float | None]]) -> Any:
    with browser.new_page() as page:
        return page.evaluate(RUN, [(STATIC / "chart.js").read_text(encoding="utf-8"), held])


def test_the_error_band_is_one_closed_outline_a_stretch(browser: Browser) -> None:
    drawn = outline(browser, {"x": [1, 2, None, 9], "low": [0, 0, None, 5], "high": [1, 1, None, 6]})
    assert drawn["x"] == [1, 2, 2, 1, None, 9, 9, None]
    assert drawn["y"] == [1, 1, 0, 0, None, 6, 5, None]


def test_a_point_without_an_error_is_left_out_of_the_band(browser: Browser) -> None:
    drawn = outline(browser, {"x": [1, 2, 3], "low": [0, None, 0], "high": [1, None, 1]})
    assert (drawn["x"], drawn["y"]) == ([1, 3, 3, 1, None], [1, 1, 0, 0, None])
    assert outline(browser, {}) == {"x": [], "y": []}


TAKE = """async ([source, messages]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const chart = new module.Chart(document.body);
  for (const message of messages) chart.take(message);
  return { layout: chart.layout, columns: chart.columns };
}"""


def test_a_chart_puts_together_what_it_is_sent_in_parts(browser: Browser) -> None:
    first = {
        "name": "loss",
        "title": "Loss",
        "layout.xaxis": {"range": [0, 4], "title": "step"},
        "layout.margin": {"l": 1},
    }
    first["columns"] = {"kept": {"drop": 0, "keep": 0, "add": {"x": {"runs": [[1, 4]]}, "y": [0.1, 0.2, 0.3, 0.4]}}}
    then = {"name": "loss", "layout.xaxis.range": [2, 6]}
    then["columns"] = {"kept": {"drop": 1, "keep": 3, "add": {"x": {"runs": [[], [6, 7]]}, "y": [None, 0.6, 0.7]}}}
    with browser.new_page() as page:
        held = page.evaluate(TAKE, [(STATIC / "chart.js").read_text(encoding="utf-8"), [first, then]])
    assert held["layout"] == {"xaxis": {"range": [2, 6], "title": "step"}, "margin": {"l": 1}}
    assert held["columns"]["kept"] == {"x": [2, 3, 4, None, 6, 7], "y": [0.2, 0.3, 0.4, None, 0.6, 0.7]}
