"""What the browser works out for itself, in a real browser: no dashboard behind it."""

from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize

from app import field, slider
from app.figures import lifecycle
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


TRIM = """async ([source, places, width]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const tick = ([x, text]) =>
    `<g class="xtick"><text transform="translate(${x},0)" data-unformatted="${text}"></text></g>`;
  document.body.innerHTML = '<div class="hy-plot"><svg></svg></div>';
  const chart = new module.Chart(document.body);
  chart.size = [width, 100];
  return places.map((at) => {
    const svg = chart.div.firstElementChild;
    svg.innerHTML = at.map(tick).join("");
    chart.trim();
    return [...svg.querySelectorAll("text")].map((el) => el.style.visibility);
  });
}"""


def trimmed(browser: Browser, *places: list[tuple[float, str]]) -> Any:
    with browser.new_page() as page:
        return page.evaluate(TRIM, [(STATIC / "chart.js").read_text(encoding="utf-8"), list(places), 400])


def test_the_last_number_of_an_axis_is_hidden_where_the_edge_would_cut_it(browser: Browser) -> None:
    fits, cut = [(50.0, "0"), (386.0, "1,000")], [(50.0, "0"), (387.0, "1,000")]
    assert trimmed(browser, fits, cut) == [["", ""], ["", "hidden"]]
    dated = [(370.0, "12:00:00<br>Nov 30, 2026")]
    assert trimmed(browser, dated) == [["hidden"]], "the longest line counts"
    assert trimmed(browser, []) == [[]]


DATA = """async ([source, traces, columns]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  document.body.innerHTML = "<section data-figure=f><h3></h3><small></small><div class=hy-plot></div></section>";
  const chart = new module.Chart(document.querySelector("section"));
  const drawn = [];
  const note = (data, layout) => drawn.push([data.map((t) => [t.uid, t.name]), "yaxis2" in layout]);
  const plotly = { react: async (_div, data, layout) => note(data, layout) };
  chart.div.on = () => {};
  const screen = { colours: {}, span: null, shows: () => true };
  for (const held of columns) {
    const layout = { xaxis: {}, yaxis2: {}, font: {} };
    Object.assign(chart, { traces, columns: held, layout, title: "", caption: "" });
    chart.measure();
    await chart.draw(plotly, screen);
  }
  return drawn;
}"""


def test_series_without_a_point_are_left_out_and_the_others_stay_what_they_were(browser: Browser) -> None:
    traces = [{"series": "gone", "name": "gone"}, {"series": "loss", "name": "loss"},
              {"series": "mark", "name": "mark", "yaxis": "y2", "height": 0.9}]  # fmt: skip
    some = {"x": [1, 2], "y": [3, 4]}
    held = [{"loss": some}, {"gone": some, "loss": some, "mark": {"x": [1]}}, {"loss": {"x": [], "y": []}}]
    with browser.new_page() as page:
        drawn = page.evaluate(DATA, [(STATIC / "chart.js").read_text(encoding="utf-8"), traces, held])
    assert drawn == [
        [[["1", "loss"]], False],
        [[["0", "gone"], ["1", "loss"], ["2", "mark"]], True],
        [[], False],
    ]


TICKS = """async ([source, width]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  document.body.innerHTML = "<section data-figure=f><h3></h3><small></small><div class=hy-plot></div></section>";
  const chart = new module.Chart(document.querySelector("section"));
  chart.div.on = () => {};
  let asked;
  const plotly = { react: async (_div, _data, layout) => { asked = layout.xaxis.nticks; } };
  const layout = { xaxis: { nticks: 12 }, font: {}, margin: { l: 52, r: 14 } };
  Object.assign(chart, { traces: [], columns: {}, layout, title: "", caption: "", size: [width, 100] });
  await chart.draw(plotly, { colours: {}, span: null, shows: () => true });
  return [asked, layout.xaxis.nticks];
}"""


def test_a_narrow_chart_has_as_many_numbers_under_it_as_fit_side_by_side(browser: Browser) -> None:
    source = (STATIC / "chart.js").read_text(encoding="utf-8")
    with browser.new_page() as page:
        asked = [page.evaluate(TICKS, [source, width]) for width in (1040, 320, 60)]
    assert asked == [[12, 12], [5, 12], [2, 12]], "and a wider window has more of them again"


DRAWING = """() => [...document.querySelectorAll('svg')].filter(svg => svg.checkVisibility()).map(svg => ({
  names: [...svg.querySelectorAll('.hy-name')].map(text => text.textContent),
  lines: Math.min(...[...svg.querySelectorAll('text')].map(text => {
    text.textContent ||= 'entered 9x';
    return text.getBoundingClientRect().height;
  })),
  over: Math.max(...[...svg.querySelectorAll('.hy-node')].map(node => node.getBoundingClientRect().right)),
}))"""


@pytest.mark.parametrize("width", [360, 560, 561, 1440])
def test_the_lifecycle_is_drawn_once_and_can_be_read_on_a_phone(browser: Browser, width: int) -> None:
    with browser.new_page(viewport=ViewportSize(width=width, height=800)) as page:
        page.set_content(f"<style>{(STATIC / 'live.css').read_text(encoding='utf-8')}</style>{lifecycle.svg()}")
        (drawn,) = page.evaluate(DRAWING)
    assert drawn["names"] == ["WARMUP", "FULL", "PREDICT", "CORRECT"]
    assert drawn["lines"] > 9, "pixels high"
    assert drawn["over"] <= width


MOVE = """async ([source, html, data, typed]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  document.body.innerHTML = html;
  const told = [];
  module.default({ parentElement: document.body, data, setStateValue: (name, value) => told.push(value) });
  const number = document.querySelectorAll("input")[1];
  number.value = typed;
  number.dispatchEvent(new Event("change"));
  return [number.value, document.querySelector("output").textContent, told.at(-1).value];
}"""


def test_a_slider_shows_the_whole_number_that_it_tells(browser: Browser) -> None:
    data = {"title": "Steps", "help": "", "places": [1, 1e7], "base": 40, "value": 40}
    data |= {"low": 1, "high": 1e7, "whole": True}
    with browser.new_page() as page:
        script = (STATIC / "slider.js").read_text(encoding="utf-8")
        assert page.evaluate(MOVE, [script, slider.HTML, data, "1234567"]) == ["1234567", "1234567", 1234567]


FIELD = """async ([source, html, moves]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  document.body.innerHTML = html;
  const [number, send, note] = ["input", "button[type=submit]", "output"].map((one) => document.querySelector(one));
  const seen = [];
  let data = { title: "Decay", low: 0, high: 10, mark: 1, mine: false, done: "", changed: "", id: "a", rev: 1 };
  for (const move of moves) {
    if (move.type !== undefined) {
      number.value = move.type;
      number.dispatchEvent(new Event("input"));
    }
    if (move.send) send.click();
    data = { ...data, ...move.data };
    module.default({ parentElement: document.body, data, setTriggerValue: () => {} });
    seen.push([number.value, note.textContent]);
  }
  return seen;
}"""


def field_after(browser: Browser, *moves: dict[str, Any]) -> Any:
    """What a field shows and says after each of its redrawings."""
    source = (STATIC / "field.js").read_text(encoding="utf-8")
    with browser.new_page() as page:
        return page.evaluate(FIELD, [source, field.HTML, moves])


BOBS = {"shown": "0.05", "mark": 3, "changed": "By Bob.", "id": "b"}
FIRST = {"data": {"shown": "0.02"}}


def test_a_field_whose_number_was_applied_follows_whoever_came_after(browser: Browser) -> None:
    """Both changes came between two of its redrawings: it never saw its own in force."""
    sent = {"type": "0.04", "send": True, "data": BOBS | {"done": "a"}}
    assert field_after(browser, FIRST, sent) == [["0.02", ""], ["0.05", ""]]
    assert field_after(browser, FIRST, sent, {"type": "0.06", "data": {"mark": 4, "shown": "0.07"}})[-1] == [
        "0.06", "Now 0.07. By Bob.",
    ]  # fmt: skip


def test_a_field_keeps_a_number_that_was_sent_and_not_applied(browser: Browser) -> None:
    sent = {"type": "0.04", "send": True, "data": BOBS}
    assert field_after(browser, FIRST, sent)[-1] == ["0.04", "Now 0.05. By Bob."]
    again = {"type": "0.045", "data": BOBS | {"done": "a"}}
    assert field_after(browser, FIRST, sent | {"data": {"id": "b"}}, again)[-1] == ["0.045", "Now 0.05. By Bob."]
