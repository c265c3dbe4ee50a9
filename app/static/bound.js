// Values that the page's HTML names, shown in its elements. Knows nothing of training.

// What a value does to an element; true: it is to flash.
const WAYS = {
  bind(el, value) { el.textContent = value; },
  on(el, value) { el.classList.toggle("on", value); },
  scale(el, value) { el.style.transform = `scaleX(${value})`; },
  tone(el, value) { el.dataset.toneIs = value; },
  "phase-of"(el, value) { el.dataset.phase = String(value).split(" ")[1] ?? ""; },
  "which-of"(el, value) { el.dataset.which = value; el.hidden = !value; },
  flash(el, value) {
    const first = el.dataset.flashed === undefined;
    el.dataset.flashed = value;
    el.onanimationend ??= () => el.classList.remove("flash");
    return value >= 0 && !first;  // what was so before the page was opened is no news
  },
};

export class Bound {
  // Looks the elements up once: a page's HTML is made once.
  constructor(root) {
    this.root = root;
    this.elements = new Map();
    for (const [way, act] of Object.entries(WAYS)) {
      for (const el of root.querySelectorAll(`[data-${way}]`)) {
        const key = el.getAttribute(`data-${way}`);
        this.elements.set(key, [...(this.elements.get(key) ?? []), [el, act]]);
      }
    }
  }

  show(values) {
    const lit = [];
    for (const [key, value] of Object.entries(values)) {
      for (const [el, act] of this.elements.get(key) ?? []) if (act(el, value)) lit.push(el);
    }
    if (!lit.length) return;
    for (const el of lit) el.classList.remove("flash");
    this.root.getBoundingClientRect();  // once for all, so that the animations begin again
    for (const el of lit) el.classList.add("flash");
  }
}
