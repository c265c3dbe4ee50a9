// One live screen in the browser: applies messages, keeps the figures, reconnects. Knows nothing of training.

import { Bound } from "./bound.js";
import { Chart, loadPlotly } from "./chart.js";
import { fill } from "./lists.js";
import { filter, pressed, wireFilters } from "./press.js";
import { Replay } from "./replay.js";
import { Toasts } from "./toasts.js";

const ENDS = [-1e9, 1e14];  // of any view: the server takes no span beyond them (app/screen.py)
const RETRY_MS = [500, 1000, 2000, 5000];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

class Screen {
  constructor(parent, data) {
    window.hybridMounts = (window.hybridMounts ?? 0) + 1;
    this.root = document.createElement("div");
    this.root.className = "hy-root";
    this.root.innerHTML = data.html;
    parent.append(this.root);
    this.bound = new Bound(this.root);
    this.page = data.page;
    this.others = data.others;
    this.tokens = data.tokens;
    this.plotlyUrl = data.plotly;
    this.last = data.last;
    this.span = null;
    this.log = false;
    this.logX = false;
    this.smooth = 0;
    this.x = "step";
    this.uirevision = 0;
    this.failures = 0;
    this.charts = {};
    for (const section of this.root.querySelectorAll("[data-figure]")) {
      this.charts[section.dataset.figure] = new Chart(section);
    }
    this.visible = new Set(Object.keys(this.charts));
    this.readTheme();
    this.readAddress();
    this.wireTools();
    this.toasts = new Toasts(this.root);
    wireFilters(this.root);
    this.root.addEventListener("click", (event) => pressed(event, this.send));
    this.hidden = new Set();  // "figure/series", or "/series" for all charts of the page
    this.root.addEventListener("click", (event) => this.eye(event.target.closest("[data-eye]")));
    this.replay = new Replay(this.root, () => this.changed());
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
    this.watchVisibility();
    this.themeTimer = setInterval(() => { if (this.readTheme()) this.redraw(); }, 1000);
  }

  // -- the server --
  watch(run, others, first) {
    if (run === this.run && others === this.others && first === this.first) return;
    [this.others, this.first] = [others, first];
    if (this.run !== undefined) this.span = null;  // the span in the address is that of the first run shown
    this.run = run;
    this.replay?.leave();
    this.toasts.forget();
    this.uirevision += 1;
    this.showFollow();
    this.connect();
  }

  connect() {
    this.disconnect();
    const url = new URL("/live/ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("run", this.run);
    url.searchParams.set("page", this.page);
    if (this.others) url.searchParams.set("with", this.others);
    if (this.first) url.searchParams.set("first", this.first);
    const socket = this.socket = new WebSocket(url);
    this.drawnNumber = 0;
    for (const chart of Object.values(this.charts)) chart.columns = {};
    socket.onopen = () => { this.failures = 0; this.ask(); };
    socket.onmessage = (event) => this.take(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      const why = event.reason ? ` (${event.reason})` : "";
      this.banner(`Not connected to the dashboard server${why}; trying again. What you see is old.`);
      this.retry = setTimeout(() => this.connect(), RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
    };
  }

  disconnect() {
    clearTimeout(this.retry);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  ask() {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const visible = document.hidden ? [] : [...this.visible];
    this.socket.send(JSON.stringify({
      last: this.span || !this.last ? null : this.last, span: this.span, log: this.log, log_x: this.logX, x: this.x,
      smooth: this.smooth, zone: -new Date().getTimezoneOffset(), replay: this.replay.wish, visible, drawn: this.drawnNumber,
    }));
  }

  take(message) {
    switch (message.t) {
      case "bind": return this.bind(message.set);
      case "list": return this.list(message.name, message.items);
      case "draw": return this.draw(message);
      case "trouble": return this.banner(message.text);
    }
  }

  async draw(message) {
    const charts = message.figures.map((figure) => this.charts[figure.name].take(figure));
    if (message.figures.some((figure) => "signals" in figure)) this.offerData();
    const took = this.root.dataset.drawMs = Math.round(await this.paint(charts));
    await pause(Math.min(1000, took));  // drawing takes at most half the time
    this.drawnNumber = message.number;
    this.ask();
  }

  // Draws charts one by one, so that the strip moves between them; gives the milliseconds of drawing.
  async paint(charts) {
    const Plotly = await loadPlotly(this.plotlyUrl);
    for (const chart of charts) chart.measure();  // all before the first is drawn: each look at a size lays out the page anew
    let took = 0;
    for (const chart of charts) {
      const began = performance.now();
      await chart.draw(Plotly, this);
      took += performance.now() - began;
      await pause(0);
    }
    return took;
  }

  // All charts look otherwise now. Those out of sight wait until they are seen.
  redraw() {
    const inSight = (chart) => this.visible.has(chart.section.dataset.figure);
    for (const chart of Object.values(this.charts)) chart.stale = !inSight(chart);
    return this.paint(Object.values(this.charts).filter(inSight));
  }

  // -- bound values --
  bind(values) {
    this.bound.show(values);
    if (!this.begun) {  // plotly.js takes the page's thread for a second or more: the first values are seen before that
      this.begun = true;
      requestAnimationFrame(() => setTimeout(() => loadPlotly(this.plotlyUrl).catch(() => {}), 0));  // who draws asks again
    }
    if ("replay.at" in values) this.replay.stands(values["replay.at"]);
    if ("feed.critical" in values) this.toasts.heard(values["feed.critical"]);
    if ("feed.error" in values) this.banner(values["feed.error"] && `Watching is troubled: ${values["feed.error"]}`);
  }

  list(name, items) {
    const list = this.root.querySelector(`[data-list="${name}"]`);
    fill(list, items);
    filter(this.root, list);
    for (const button of list.querySelectorAll("[data-eye]")) button.ariaPressed = !this.eyed(button).some((key) => this.hidden.has(key));
  }

  // -- what the reader has hidden --
  eyed(button) {
    const figure = button.closest("[data-figure]")?.dataset.figure ?? "";
    return JSON.parse(button.dataset.eye).map((series) => `${figure}/${series}`);
  }

  eye(button) {
    if (!button) return;
    const hide = button.ariaPressed === "true";
    button.ariaPressed = !hide;
    for (const key of this.eyed(button)) hide ? this.hidden.add(key) : this.hidden.delete(key);
    this.redraw();
  }

  shows(figure, series) { return !this.hidden.has(`${figure}/${series}`) && !this.hidden.has(`/${series}`); }

  banner(text) {
    const el = this.root.querySelector(".hy-banner");
    el.textContent = text;
    el.classList.toggle("on", Boolean(text));
  }

  // -- range, zoom and axes --
  wireTools() {
    const on = (query, act) => { for (const el of this.root.querySelectorAll(query)) el.onclick = () => act(el); };
    on(".hy-tools [data-last]", (button) => { this.last = Number(button.dataset.last); this.follow(); });
    on(".hy-tools [data-x]", (button) => this.setAxis(button.dataset.x));
    on(".hy-log", () => { this.log = !this.log; this.changed(); });
    on(".hy-log-x", () => { this.logX = !this.logX; this.changed(); });
    on(".hy-refollow", () => this.follow());
    on(".hy-keys", () => this.showKeys());
    on(".hy-goto", (button) => this.goto(button.dataset.goto));
    for (const el of this.root.querySelectorAll(".hy-smooth input")) el.oninput = () => this.setSmooth(Number(el.value));
  }

  setAxis(x) {
    if (!this.root.querySelector(".hy-tools [data-x]")) return;
    this.x = x;
    this.span = null;  // it was in the units of the other axis
    this.changed();
  }

  setSmooth(weight) {
    this.smooth = Math.round(Math.max(0, Math.min(0.99, weight)) * 100) / 100;
    this.changed();
  }

  // A wish of the reader's: show it, keep it in the address, ask for it.
  changed() {
    this.uirevision += 1;
    this.showFollow();
    this.ask();
  }

  key(event) {
    const typing = event.composedPath()[0].closest?.("input:not([type=range]), textarea, select, [contenteditable], [role=dialog]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const axes = ["step", "relative", "wall"];
    switch (event.key) {
      case "f": return this.follow();
      case "l": this.log = !this.log; return this.changed();
      case "x": return this.setAxis(axes[(axes.indexOf(this.x) + 1) % axes.length]);
      case "s": return this.setSmooth(this.smooth === 0 ? 0.5 : 1 - (1 - this.smooth) / 1.5);
      case "S": return this.setSmooth(this.smooth <= 0.5 ? 0 : 1 - (1 - this.smooth) * 1.5);
      case "a": return this.acknowledge();
      case "?": return this.showKeys();
      case "Escape": return this.root.querySelector(".hy-help:not([hidden])") && this.showKeys();
    }
  }

  // The button of the newest open alert, or the page that has it.
  acknowledge() {
    const button = [...document.querySelectorAll("button")].find((el) => el.textContent.trim().startsWith("Acknowledge"));
    if (button) button.click();
    else this.goto("Alerts");
  }

  // Another page for the same run, as the navigation opens it.
  goto(page) {
    [...document.querySelectorAll("a")].find((el) => el.textContent.trim().endsWith(page))?.click();
  }

  showKeys() {
    const help = this.root.querySelector(".hy-help");
    if (!help) return;
    help.hidden = !help.hidden;
    this.root.querySelector(".hy-keys").ariaExpanded = !help.hidden;
  }

  zoom(span) {
    const [low, high] = span.map((end) => Math.min(Math.max(end, ENDS[0]), ENDS[1]));
    if (!(low < high)) return;
    this.span = [low, high];
    this.showFollow();
    this.redraw().then(() => this.ask());
  }

  follow() {
    this.span = null;
    this.changed();
    this.redraw();
  }

  async point(from, x) {
    const Plotly = await loadPlotly(this.plotlyUrl);
    for (const [name, chart] of Object.entries(this.charts)) {
      if (chart !== from && this.visible.has(name)) chart.follow(Plotly, x);
    }
  }

  showFollow() {
    const zoomed = this.span !== null;
    this.root.dataset.following = !zoomed;
    this.writeAddress();
    this.offerData();
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
    this.usual = this.last;
    const number = (key) => (asked.get(key) === null || asked.get(key) === "" || !Number.isFinite(Number(asked.get(key))) ? null : Number(asked.get(key)));
    const last = number("last");
    if (last !== null && last >= 0 && last <= 1e7) this.last = Math.round(last);
    if (["relative", "wall"].includes(asked.get("x"))) this.x = asked.get("x");
    this.log = asked.get("log") === "1";
    this.logX = asked.get("logx") === "1";
    this.smooth = Math.max(0, Math.min(0.99, number("smooth") ?? 0));
    const [from, to] = [number("from"), number("to")];
    if (from !== null && to !== null && ENDS[0] <= from && from < to && to <= ENDS[1]) this.span = [from, to];
  }

  // What a chart shows, as a file at full resolution.
  offerData() {
    for (const { section, signals } of Object.values(this.charts)) {
      const link = section.querySelector(".hy-csv");
      if (!link) continue;
      link.hidden = !signals?.length;
      if (link.hidden || !this.run) continue;
      const url = new URL("/live/range", location.href);
      url.searchParams.set("run", this.run);
      url.searchParams.set("signals", signals.join(","));
      if (this.span && this.x === "step") {
        url.searchParams.set("from", Math.floor(this.span[0]));
        url.searchParams.set("to", Math.ceil(this.span[1]));
      }
      link.href = url;
      link.title = this.span && this.x === "step" ? "Every measured step in view" : "Every measured step";
    }
  }

  // -- what the reader sees --
  readTheme() {
    const background = getComputedStyle(this.root).getPropertyValue("--st-background-color").trim();
    const mode = isDark(background) ? "dark" : "light";
    if (mode === this.mode) return false;
    this.mode = mode;
    this.font = getComputedStyle(this.root).fontFamily;
    this.colours = this.tokens[mode];
    this.root.dataset.mode = mode;
    for (const [name, value] of Object.entries(this.colours)) this.root.style.setProperty(`--hy-${name}`, value);
    return true;
  }

  watchVisibility() {
    this.seen = new IntersectionObserver((entries) => {
      const waited = [];
      for (const { target, isIntersecting } of entries) {
        const name = target.dataset.figure;
        isIntersecting ? this.visible.add(name) : this.visible.delete(name);
        if (isIntersecting && this.charts[name].stale) waited.push(this.charts[name]);
      }
      if (waited.length) this.paint(waited);
      this.ask();
    }, { rootMargin: "100px" });
    this.sized = new ResizeObserver(() => {
      clearTimeout(this.sizeTimer);
      this.sizeTimer = setTimeout(() => this.redraw(), 80);
    });
    for (const chart of Object.values(this.charts)) this.seen.observe(chart.section);
    this.sized.observe(this.root);
    this.onHidden = () => this.ask();
    document.addEventListener("visibilitychange", this.onHidden);
  }

  destroy() {
    this.disconnect();
    clearInterval(this.themeTimer);
    clearTimeout(this.sizeTimer);
    this.seen.disconnect();
    this.sized.disconnect();
    document.removeEventListener("visibilitychange", this.onHidden);
    document.removeEventListener("keydown", this.onKey);
    for (const chart of Object.values(this.charts)) window.Plotly?.purge(chart.div);
    this.root.remove();
  }
}

function isDark(text) {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = text || "#ffffff";
  const hex = probe.fillStyle;
  if (!hex.startsWith("#")) return matchMedia("(prefers-color-scheme: dark)").matches;
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return 0.3 * r + 0.6 * g + 0.1 * b < 128;
}

// Streamlit calls this at every rerun; the screen lives on the element and only the first call makes one.
export default function live({ parentElement, data, setTriggerValue }) {
  const fresh = !parentElement.hybridScreen;
  const screen = parentElement.hybridScreen ??= new Screen(parentElement, data);
  clearTimeout(screen.ending);
  screen.send = setTriggerValue;
  if (fresh) screen.showFollow();
  screen.watch(data.run, data.others, data.first);
  return () => {
    screen.ending = setTimeout(() => {
      screen.destroy();
      delete parentElement.hybridScreen;
    }, 300);
  };
}
