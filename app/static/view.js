// What the reader wants to see of a run: range, zoom, axes, smoothing. Set by the tools and keys, kept in the address.

const ENDS = [-1e9, 1e14];  // of any view: the server takes no span beyond them (app/screen.py)
const AXES = ["step", "relative", "wall"];
const KEYS = ["f", "l", "x", "s", "S"];

const within = (low, high, value) => Math.max(low, Math.min(high, value));

export class View {
  // "changed" is called after a wish of the reader's, "follow" where the charts are to go back to the newest step.
  constructor(root, last, changed, follow) {
    this.root = root;
    [this.changed, this.follow] = [changed, follow];
    this.last = this.usual = last;
    this.span = null;
    this.log = false;
    this.logX = false;
    this.smooth = 0;
    this.x = "step";
    this.readAddress();
    this.wire();
  }

  get steps() { return this.x === "step" ? this.span : null; }

  // The part of a message to the server.
  get asked() {
    return {
      last: this.span || !this.last ? null : this.last, span: this.span, log: this.log, log_x: this.logX, x: this.x, smooth: this.smooth,
    };
  }

  wire() {
    const on = (query, act) => { for (const el of this.root.querySelectorAll(query)) el.onclick = () => act(el); };
    on(".hy-tools [data-last]", (button) => { this.last = Number(button.dataset.last); this.follow(); });
    on(".hy-tools [data-x]", (button) => this.setAxis(button.dataset.x));
    on(".hy-log", () => this.set({ log: !this.log }));
    on(".hy-log-x", () => this.set({ logX: !this.logX }));
    on(".hy-refollow", () => this.follow());
    for (const el of this.root.querySelectorAll(".hy-smooth input")) el.oninput = () => this.setSmooth(Number(el.value));
  }

  set(wish) {
    Object.assign(this, wish);
    this.changed();
  }

  setAxis(x) {
    if (!this.root.querySelector(".hy-tools [data-x]")) return;
    this.set({ x, span: null });  // it was in the units of the other axis
  }

  setSmooth(weight) { this.set({ smooth: Math.round(within(0, 0.99, weight) * 100) / 100 }); }

  // True: this is another span now.
  zoom(span) {
    const [low, high] = span.map((end) => within(...ENDS, end));
    if (!(low < high)) return false;
    this.span = [low, high];
    return true;
  }

  // True: it was a key of the view's.
  key(key) {
    switch (key) {
      case "f": this.follow(); break;
      case "l": this.set({ log: !this.log }); break;
      case "x": this.setAxis(AXES[(AXES.indexOf(this.x) + 1) % AXES.length]); break;
      case "s": this.setSmooth(this.smooth === 0 ? 0.5 : 1 - (1 - this.smooth) / 1.5); break;
      case "S": this.setSmooth(this.smooth <= 0.5 ? 0 : 1 - (1 - this.smooth) * 1.5); break;
    }
    return KEYS.includes(key);
  }

  // In the tools and in the address.
  show() {
    const zoomed = this.span !== null;
    this.root.dataset.following = !zoomed;
    this.writeAddress();
    const each = (query, act) => this.root.querySelectorAll(query).forEach(act);
    const press = (query, pressed) => each(query, (el) => { el.ariaPressed = pressed(el); });
    each(".hy-follow", (el) => { el.textContent = zoomed ? `view held at ${this.said(this.span)}` : "following the newest step"; });
    each(".hy-refollow", (el) => { el.hidden = !zoomed; });
    press(".hy-tools [data-last]", (el) => !zoomed && Number(el.dataset.last) === this.last);
    press(".hy-tools [data-x]", (el) => el.dataset.x === this.x);
    press(".hy-log", () => this.log);
    press(".hy-log-x", () => this.logX && this.x === "step");
    each(".hy-log-x", (el) => { el.disabled = this.x !== "step"; });
    each(".hy-smooth input", (el) => { el.value = this.smooth; });
    each(".hy-smooth output", (el) => { el.textContent = this.smooth; });
  }

  said([low, high]) {
    if (this.x === "wall") {
      return [low, high].map((ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ")).join(" to ");
    }
    const number = (value) => (this.x === "step" ? Math.round(value) : value).toLocaleString("en-US", { maximumFractionDigits: 2 });
    return `${this.x === "step" ? "steps" : "time"} ${number(low)} to ${number(high)}`;
  }

  // The view is part of the address, so that a link shows what its sender saw.
  writeAddress() {
    const url = new URL(location.href);
    const view = {
      last: this.last === this.usual ? null : this.last, x: this.x === "step" ? null : this.x, log: this.log ? 1 : null,
      logx: this.logX ? 1 : null, smooth: this.smooth || null, from: this.span?.[0] ?? null, to: this.span?.[1] ?? null,
    };
    for (const [key, value] of Object.entries(view)) {
      if (value === null) url.searchParams.delete(key);
      else url.searchParams.set(key, value);
    }
    if (url.href !== location.href) history.replaceState(history.state, "", url);
  }

  readAddress() {
    const asked = new URL(location.href).searchParams;
    const number = (key) => (asked.get(key) === null || asked.get(key) === "" || !Number.isFinite(Number(asked.get(key))) ? null : Number(asked.get(key)));
    const last = number("last");
    if (last !== null && last >= 0 && last <= 1e7) this.last = Math.round(last);
    if (AXES.slice(1).includes(asked.get("x"))) this.x = asked.get("x");
    this.log = asked.get("log") === "1";
    this.logX = asked.get("logx") === "1";
    this.smooth = within(0, 0.99, number("smooth") ?? 0);
    const [from, to] = [number("from"), number("to")];
    if (from !== null && to !== null && ENDS[0] <= from && from < to && to <= ENDS[1]) this.span = [from, to];
  }
}
