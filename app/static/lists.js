// Lists in the browser: items of a kind become elements. Knows nothing of training.

function make(tag, cls, text) {
  return Object.assign(document.createElement(tag), { className: cls, textContent: text ?? "" });
}

const KINDS = {
  feed(item) {
    const li = make("li", item.open ? "" : "past");
    li.dataset.toneIs = item.severity;
    li.append(make("span", "hy-icon", item.icon), make("span", "hy-what", item.message),
      make("span", "hy-when", `step ${item.step.toLocaleString("en-US")}`),
      ...(item.detail ? [make("span", "hy-detail", `${item.detail} · ${item.standing}`)] : []));
    return li;
  },

  checks(item) {
    const li = make("li", "");
    li.dataset.met = item.met;
    const mark = make("span", "hy-icon", item.met === null ? "–" : item.met ? "✓" : "✗");
    mark.setAttribute("aria-label", item.met === null ? "not measured yet" : item.met ? "holds" : "does not hold");
    li.append(mark, make("span", "hy-what", item.text), make("span", "hy-when", item.detail));
    return li;
  },

  bars(item) {
    const li = make("li", "");
    if (item.tone) li.dataset.toneIs = item.tone;
    if (item.phase) li.dataset.phase = item.phase;
    const rail = make("span", "hy-rail");
    const bar = make("i", "");
    bar.style.transform = `scaleX(${Math.max(0, Math.min(1, item.share))})`;
    rail.append(bar);
    li.append(make("span", "hy-what", item.label), rail, make("span", "hy-when", item.value));
    return li;
  },

  lines(item) {
    const li = make("li", "", item.text);
    if (item.tone) li.dataset.toneIs = item.tone;
    return li;
  },

  rows(item) {
    const tr = make("tr", "");
    if (item.tone) tr.dataset.toneIs = item.tone;
    tr.append(...item.cells.map((text) => make("td", "", text)));
    if (item.swatch) {
      const swatch = make("i", "hy-swatch");
      swatch.style.background = `var(--hy-${item.swatch})`;
      tr.firstElementChild.prepend(swatch);
    }
    return tr;
  },
};

// What the reader has selected or scrolled to stays: only elements whose item changed are replaced.
export function fill(el, items) {
  const kind = KINDS[el.dataset.kind ?? "feed"];
  if (!items.length) {
    const none = make(el.tagName === "TBODY" ? "tr" : "li", "none");
    if (el.tagName === "TBODY") none.append(Object.assign(make("td", "", el.dataset.empty), { colSpan: Number(el.dataset.width) }));
    else none.textContent = el.dataset.empty;
    el.replaceChildren(none);
    el.hybridItems = [];
    return;
  }
  const before = el.hybridItems ?? [];
  if (!before.length) el.replaceChildren();
  el.hybridItems = items.map((item) => JSON.stringify(item));
  el.hybridItems.forEach((text, i) => {
    if (text === before[i]) return;
    const fresh = kind(items[i]);
    if (i < el.children.length) el.children[i].replaceWith(fresh);
    else el.append(fresh);
  });
  while (el.children.length > items.length) el.lastElementChild.remove();
}
