// One live screen in the browser: applies messages, keeps the figures, reconnects. Knows nothing of training.

import { Bound } from "./bound.js";
import { Chart, loadPlotly } from "./chart.js";
import { fill } from "./lists.js";
import { filter, pressed, wireFilters } from "./press.js";
import { Replay } from "./replay.js";
import { Toasts } from "./toasts.js";
import { View } from "./view.js";

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
    this.uirevision = 0;
    this.failures = 0;
    this.charts = {};
    for (const section of this.root.querySelectorAll("[data-figure]")) {
      this.charts[section.dataset.figure] = new Chart(section);
    }
    this.visible = new Set(Object.keys(this.charts));
    this.readTheme();
    this.view = new View(this.root, data.last, () => this.changed(), () => this.follow());
    for (const el of this.root.querySelectorAll(".hy-keys")) el.onclick = () => this.showKeys();
    for (const el of this.root.querySelectorAll(".hy-goto")) el.onclick = () => this.goto(el.dataset.goto);
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
    if (this.run !== undefined) this.view.span = null;  // the span in the address is that of the first run shown
    this.run = run;
    this.replay?.leave();
    this.toasts.forget();
    this.uirevision += 1;
    this.show();
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
      ...this.view.asked, zone: -new Date().getTimezoneOffset(), replay: this.replay.wish, visible, drawn: this.drawnNumber,
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

  // -- what the reader wants to see --
  // A wish of the reader's: show it, keep it in the address, ask for it.
  changed() {
    this.uirevision += 1;
    this.show();
    this.ask();
  }

  show() {
    this.view.show();
    this.offerData();
  }

  key(event) {
    const typing = event.composedPath()[0].closest?.("input:not([type=range]), textarea, select, [contenteditable], [role=dialog]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.view.key(event.key)) return;
    switch (event.key) {
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

  get span() { return this.view.span; }

  zoom(span) {
    if (!this.view.zoom(span)) return;
    this.show();
    this.redraw().then(() => this.ask());
  }

  // The newest step, from now on.
  follow() {
    this.view.span = null;
    this.changed();
    this.redraw();
  }

  async point(from, x) {
    const Plotly = await loadPlotly(this.plotlyUrl);
    for (const [name, chart] of Object.entries(this.charts)) {
      if (chart !== from && this.visible.has(name)) chart.follow(Plotly, x);
    }
  }

  // What a chart shows, as a file at full resolution.
  offerData() {
    for (const { section, signals, steps } of Object.values(this.charts)) {
      const link = section.querySelector(".hy-csv");
      if (!link) continue;
      link.hidden = !signals?.length;
      if (link.hidden || !this.run) continue;
      const url = new URL("/live/range", location.href);
      url.searchParams.set("run", this.run);
      url.searchParams.set("signals", signals.join(","));
      const span = steps ? this.view.steps : null;  // a chart of the whole run does not zoom
      if (span) {
        url.searchParams.set("from", Math.floor(span[0]));
        url.searchParams.set("to", Math.ceil(span[1]));
      }
      link.href = url;
      link.title = span ? "Every measured step in view" : "Every measured step";
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
  if (fresh) screen.show();
  screen.watch(data.run, data.others, data.first);
  return () => {
    screen.ending = setTimeout(() => {
      screen.destroy();
      delete parentElement.hybridScreen;
    }, 300);
  };
}
