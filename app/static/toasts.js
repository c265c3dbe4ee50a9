// A notice when an alert becomes critical: once per alert and browser, at most three at a time. Knows nothing of training.

const SHOWN_MS = 15000;
const MOST = 3;
const MOST_REMEMBERED = 200;
const KEY = "hybrid-toasts";

export class Toasts {
  constructor(root) {
    this.root = root;
    this.first = true;
  }

  // A run's newest critical alert, as JSON; empty: none. What was so before the page was opened is no news.
  heard(text) {
    const news = !this.first;
    this.first = false;
    if (!text) return;
    const alert = JSON.parse(text);
    const known = remembered();
    if (known.includes(alert.id)) return;
    remember([...known, alert.id]);
    if (news) this.show(alert);
  }

  show(alert) {
    const box = this.root.querySelector(".hy-toasts") ?? this.root.appendChild(element("div", "hy-toasts"));
    box.setAttribute("role", "alert");
    const toast = element("div", "hy-toast");
    const close = element("button", "", "Close");
    close.type = "button";
    close.onclick = () => toast.remove();
    toast.append(element("b", "", "✖ Critical"), element("span", "", ` at step ${alert.step}: ${alert.text}`), close);
    box.append(toast);
    while (box.children.length > MOST) box.firstElementChild.remove();
    setTimeout(() => toast.remove(), SHOWN_MS);
  }

  // Another run: what stands there already is no news either.
  forget() {
    this.first = true;
  }
}

function element(tag, cls, text) {
  return Object.assign(document.createElement(tag), { className: cls, textContent: text ?? "" });
}

function remembered() {
  try {
    const held = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(held) ? held : [];
  } catch {
    return [];  // storage is off, or holds something else
  }
}

function remember(ids) {
  try {
    localStorage.setItem(KEY, JSON.stringify(ids.slice(-MOST_REMEMBERED)));
  } catch {
    // storage is off: the notice is shown once per page instead
  }
}
