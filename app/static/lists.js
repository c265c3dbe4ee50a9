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
      ...(item.detail ? [make("span", "hy-detail", item.detail)] : []), ...offers(item));
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

  // A guard is neither good nor bad: it holds or it does not.
  guards(item) {
    const li = KINDS.checks(item);
    if (item.met === false) li.firstElementChild.textContent = "○";
    return li;
  },

  bars(item) {
    const li = make("li", item.skipped ? "hy-skipped" : "");
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

  // An alert with its life, and what can be done about it. The buttons come last and stay while the rest changes.
  entries(item) {
    const li = make("li", item.open ? "" : "past");
    Object.assign(li.dataset, { toneIs: item.severity, rule: item.rule, open: item.open, id: item.id });
    const link = Object.assign(make("a", "hy-when", `step ${item.step.toLocaleString("en-US")}`), { href: item.href, target: "_self" });
    link.title = "Show these steps on the Live page";
    li.append(make("span", "hy-icon", item.icon), make("span", "hy-what", item.message), link);
    for (const [cls, text] of [["hy-path", item.path], ["hy-detail", item.why], ["hy-detail", item.holds]]) {
      if (text) li.append(make("span", cls, text));
    }
    if (item.diff) {
      const diff = make("span", "hy-diff", item.remedy);
      diff.append(...item.diff.map(changed));
      li.append(diff);
    }
    li.append(...offers(item));
    return li;
  },

  // Files to take along.
  links(item) {
    const li = make("li", "");
    const link = Object.assign(make("a", "hy-what", item.text), { href: item.href });
    link.setAttribute("download", "");
    li.append(link, make("span", "hy-when", item.note));
    return li;
  },

  // Limits of one metric as pieces of one width, with a needle where the value stands.
  ladder(item) {
    const li = make("li", "");
    li.dataset.toneIs = item.tone;
    const rail = make("span", "hy-rungs");
    for (const { tone, text } of item.segments) {
      const rung = make("span", "hy-rung", text);
      rung.dataset.toneIs = tone;
      rung.title = tone;
      rail.append(rung);
    }
    if (item.at !== null) {
      const needle = make("i", "hy-needle");
      needle.style.left = `${100 * item.at}%`;
      rail.append(needle);
    }
    li.append(make("span", "hy-what", item.label), rail, make("b", "hy-when", item.value));
    return li;
  },

  // As checks, but what shows is bad.
  symptoms(item) {
    const li = make("li", "");
    li.dataset.shows = item.met;
    const mark = make("span", "hy-icon", item.met === null ? "–" : item.met ? "▲" : "·");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", item.met === null ? "cannot be told yet" : item.met ? "shows" : "does not show");
    li.append(mark, make("span", "hy-what", item.text), make("span", "hy-when", item.detail));
    return li;
  },

  rows(item) {
    const tr = make("tr", "");
    if (item.tone) tr.dataset.toneIs = item.tone;
    tr.append(...item.cells.map((text) => make("td", "", text)));
    if (item.swatch) {
      const swatch = Object.assign(make("button", "hy-swatch"), { type: "button", title: "Hide or show in the charts" });
      swatch.style.setProperty("--swatch", `var(--hy-${item.swatch})`);
      swatch.dataset.eye = JSON.stringify([item.eye]);
      swatch.ariaLabel = `Show ${item.eye} in the charts`;
      tr.firstElementChild.prepend(swatch);
    }
    return tr;
  },
};

function changed({ name, before, after }) {
  const el = make("span", "hy-change", `${name} `);
  el.append(make("del", "", before), " → ", make("ins", "", after));
  return el;
}

// The row of buttons of an item; none where nothing can be pressed.
function offers({ press }) {
  if (!press?.length) return [];
  const row = make("span", "hy-press");
  row.dataset.offer = JSON.stringify(press);
  row.append(...press.map(offered));
  return [row];
}

function offered({ what, which, label, title }) {
  const button = make("button", what === "control" ? "hy-main" : "", label);
  Object.assign(button, { type: "button", title });
  Object.assign(button.dataset, { press: what, which });
  return button;
}

// An element for its newer self; buttons that are still offered are not touched, or a press would be lost.
function renew(old, fresh) {
  const [kept, same] = [old, fresh].map((el) => el.querySelector(":scope > .hy-press"));
  if (!kept || kept.dataset.offer !== same?.dataset.offer || old.dataset.id !== fresh.dataset.id) return old.replaceWith(fresh);
  for (const child of [...old.children]) if (child !== kept) child.remove();
  kept.before(...[...fresh.children].filter((child) => child !== same));
  old.className = fresh.className;
  Object.assign(old.dataset, fresh.dataset);
}

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
  let before = el.hybridItems ?? [];
  if (!before.length) el.replaceChildren();
  el.hybridItems = items.map((item) => JSON.stringify(item));
  const pushed = el.hybridItems.indexOf(before[0]);  // new ones on top push the others down
  if (pushed > 0) {
    el.prepend(...items.slice(0, pushed).map(kind));
    before = [...el.hybridItems.slice(0, pushed), ...before];
  }
  el.hybridItems.forEach((text, i) => {
    if (text === before[i]) return;
    const fresh = kind(items[i]);
    if (i < el.children.length) renew(el.children[i], fresh);
    else el.append(fresh);
  });
  while (el.children.length > items.length) el.lastElementChild.remove();
}
