// One live screen in the browser: applies messages, keeps the figures, reconnects. Knows nothing of training.

import { Chart, loadPlotly } from "./chart.js";
import { fill } from "./lists.js";

const RETRY_MS = [500, 1000, 2000, 5000];

class Screen {
  constructor(parent, data) {
    window.hybridMounts = (window.hybridMounts ?? 0) + 1;
    this.root = document.createElement("div");
    this.root.className = "hy-root";
    this.root.innerHTML = data.html;
    parent.append(this.root);
    this.page = data.page;
    this.tokens = data.tokens;
    this.plotlyUrl = data.plotly;
    this.last = data.last;
    this.span = null;
    this.log = false;
    this.uirevision = 0;
    this.failures = 0;
    this.charts = {};
    for (const section of this.root.querySelectorAll("[data-figure]")) {
      this.charts[section.dataset.figure] = new Chart(section);
    }
    this.visible = new Set(Object.keys(this.charts));
    this.readTheme();
    this.wireTools();
    this.watchVisibility();
    this.themeTimer = setInterval(() => { if (this.readTheme()) this.redraw(); }, 1000);
  }

  // -- the server --
  watch(run) {
    if (run === this.run) return;
    this.run = run;
    this.span = null;
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
      last: this.span || !this.last ? null : this.last, span: this.span, log: this.log, visible, drawn: this.drawnNumber,
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
    for (const figure of message.figures) this.charts[figure.name].take(figure);
    const began = performance.now();
    const Plotly = await loadPlotly(this.plotlyUrl);
    for (const figure of message.figures) await this.charts[figure.name].draw(Plotly, this);
    const took = this.root.dataset.drawMs = Math.round(performance.now() - began);
    await new Promise((done) => setTimeout(done, Math.min(1000, took)));  // drawing takes at most half the time
    this.drawnNumber = message.number;
    this.ask();
  }

  async redraw() {
    const Plotly = await loadPlotly(this.plotlyUrl);
    for (const chart of Object.values(this.charts)) await chart.draw(Plotly, this);
  }

  // -- bound values --
  bind(values) {
    const root = this.root;
    for (const [key, value] of Object.entries(values)) {
      for (const el of root.querySelectorAll(`[data-bind="${key}"]`)) el.textContent = value;
      for (const el of root.querySelectorAll(`[data-on="${key}"]`)) el.classList.toggle("on", value);
      for (const el of root.querySelectorAll(`[data-scale="${key}"]`)) el.style.transform = `scaleX(${value})`;
      for (const el of root.querySelectorAll(`[data-tone="${key}"]`)) el.dataset.toneIs = value;
      for (const el of root.querySelectorAll(`[data-phase-of="${key}"]`)) el.dataset.phase = String(value).split(" ")[1] ?? "";
      for (const el of root.querySelectorAll(`[data-flash="${key}"]`)) this.flash(el, value);
    }
    if ("feed.error" in values) this.banner(values["feed.error"] && `Watching is troubled: ${values["feed.error"]}`);
  }

  flash(el, value) {
    const first = el.dataset.flashed === undefined;
    el.dataset.flashed = value;
    if (value < 0 || first) return;  // what was so before the page was opened is no news
    el.classList.remove("flash");
    el.getBoundingClientRect();  // so that the animation begins again
    el.classList.add("flash");
    el.onanimationend = () => el.classList.remove("flash");
  }

  list(name, items) {
    fill(this.root.querySelector(`[data-list="${name}"]`), items);
  }

  banner(text) {
    const el = this.root.querySelector(".hy-banner");
    el.textContent = text;
    el.classList.toggle("on", Boolean(text));
  }

  // -- range and zoom --
  wireTools() {
    for (const button of this.root.querySelectorAll("[data-last]")) {
      button.onclick = () => { this.last = Number(button.dataset.last); this.follow(); };
    }
    const log = this.root.querySelector(".hy-log");
    if (!log) return;  // a page without charts over steps
    log.onclick = () => { this.log = !this.log; log.ariaPressed = this.log; this.uirevision += 1; this.ask(); };
    this.root.querySelector(".hy-refollow").onclick = () => this.follow();
  }

  zoom(span) {
    if (!(span[0] < span[1])) return;
    this.span = span;
    this.showFollow();
    this.redraw().then(() => this.ask());
  }

  follow() {
    this.span = null;
    this.uirevision += 1;
    this.showFollow();
    this.ask();
    this.redraw();
  }

  showFollow() {
    const zoomed = this.span !== null;
    this.root.dataset.following = !zoomed;
    if (!this.root.querySelector(".hy-follow")) return;
    const steps = (value) => Math.round(value).toLocaleString("en-US");
    this.root.querySelector(".hy-follow").textContent =
      zoomed ? `view held at steps ${steps(this.span[0])} to ${steps(this.span[1])}` : "following the newest step";
    this.root.querySelector(".hy-refollow").hidden = !zoomed;
    for (const button of this.root.querySelectorAll("[data-last]")) {
      button.ariaPressed = !zoomed && Number(button.dataset.last) === this.last;
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
      for (const { target, isIntersecting } of entries) {
        const name = target.dataset.figure;
        isIntersecting ? this.visible.add(name) : this.visible.delete(name);
      }
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
export default function live({ parentElement, data }) {
  const fresh = !parentElement.hybridScreen;
  const screen = parentElement.hybridScreen ??= new Screen(parentElement, data);
  clearTimeout(screen.ending);
  if (fresh) screen.showFollow();
  screen.watch(data.run);
  return () => {
    screen.ending = setTimeout(() => {
      screen.destroy();
      delete parentElement.hybridScreen;
    }, 300);
  };
}
