// One plotly figure in the browser: takes columns as they change and draws them. Knows nothing of training.

const CONFIG = {
  displaylogo: false,
  doubleClick: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "resetScale2d", "sendChartToCloud"],
  plotlyServerURL: "",  // no chart is sent to anybody
  toImageButtonOptions: { scale: 2 },
};

const LABEL = 50;  // pixels that a number on the x axis takes, and the room beside it
const DIGIT = 6;  // pixels of a digit of a tick's label
const WIDTHS = { ",": 3, ".": 3, ":": 3, " ": 3, "%": 10 };

let plotlyLoad = null;
export function loadPlotly(url) {
  plotlyLoad ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => done(window.Plotly);
    script.onerror = () => { plotlyLoad = null; failed(new Error("plotly.js did not load")); };
    document.head.append(script);
  });
  return plotlyLoad;
}

// ---- colours: "$token" or "$token@opacity", looked up in the theme -------------------------------------------------
function colour(tokens, text) {
  const [name, opacity] = text.slice(1).split("@");
  const hex = tokens[name];
  if (opacity === undefined) return hex;
  const part = (at) => parseInt(hex.slice(at, at + 2), 16);
  return `rgba(${part(1)},${part(3)},${part(5)},${opacity})`;
}

function themed(tokens, value) {
  if (typeof value === "string") return value.startsWith("$") ? colour(tokens, value) : value;
  if (Array.isArray(value)) return value.map((item) => themed(tokens, item));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(tokens, item)]));
}

function bandPath(edges, [y0, y1]) {
  return edges.x.map((x0, i) => `M${x0},${y0}L${edges.y[i]},${y0}L${edges.y[i]},${y1}L${x0},${y1}Z`).join("");
}

// A filled band as one closed line a stretch: along the upper edge, back along the lower one.
export function outline({ x = [], low = [], high = [] }) {
  const line = { x: [], y: [] };
  let stretch = [];
  const add = (at, value) => { line.x.push(at); line.y.push(value); };
  const close = () => {
    for (const i of stretch) add(x[i], high[i]);
    for (const i of stretch.reverse()) add(x[i], low[i]);
    if (stretch.length) add(null, null);
    stretch = [];
  };
  x.forEach((at, i) => {
    if (at === null) close();
    else if (low[i] !== null && high[i] !== null) stretch.push(i);
  });
  close();
  return line;
}

// Steps that follow one another, from the first and last of each run; a break between two runs.
const steps = ({ runs }) => runs.flatMap(([from, to], at) => [
  ...(at ? [null] : []), ...(from === undefined ? [] : Array.from({ length: to - from + 1 }, (_, i) => from + i)),
]);

// ---- one plotly figure ---------------------------------------------------------------------------------------------
export class Chart {
  constructor(section) {
    this.section = section;
    this.div = section.querySelector(".hy-plot");
    this.columns = {};
    this.revision = 0;
    this.drawn = false;
    this.stale = false;
  }

  take(message) {
    for (const key of ["traces", "title", "caption", "steps", "signals"]) if (key in message) this[key] = message[key];
    for (const [key, value] of Object.entries(message)) {
      const [head, name, part] = key.split(".");
      if (head === "layout") (this.layout ??= {})[name] = part ? { ...this.layout[name], [part]: value } : value;
    }
    for (const [name, change] of Object.entries(message.columns ?? {})) {
      const held = this.columns[name] ??= {};
      for (const [column, added] of Object.entries(change.add)) {
        const kept = (held[column] ?? []).slice(change.drop, change.drop + change.keep);
        held[column] = kept.concat(Array.isArray(added) ? added : steps(added));
      }
      if (change.text) held.text = change.text;
    }
    return this;
  }

  measure() { this.size = [this.div.clientWidth, this.div.clientHeight]; }

  // Traces without a point are left out: plotly takes as long to find that out as to draw a short one.
  filled({ series, rows, categories }) {
    const { x = [], y = [], ...more } = this.columns[series] ?? {};
    return x.length > 0 || y.length > 0 || rows?.some((row) => more[row]?.length) || categories?.length > 0;
  }

  async draw(Plotly, screen) {
    if (!this.layout) return;
    const uids = new Map(this.traces.map((trace, i) => [trace, `${i}`]));  // a trace is itself, whatever is left out before it
    const traces = this.traces.filter((trace) => this.filled(trace));
    const data = traces.map((given) => {
      const { series, height, categories, rows, outline: filled, ...trace } = given;
      const own = { ...themed(screen.colours, trace), uid: uids.get(given), visible: screen.shows(this.section.dataset.figure, series) };
      if (filled) return { ...own, ...outline(this.columns[series] ?? {}) };
      const { x = [], y, text, ...more } = this.columns[series] ?? {};
      const z = rows?.map((row) => more[row] ?? []);  // a heatmap's rows are columns of log10
      const cells = z && { z, customdata: z.map((row) => row.map((v) => (v === null ? null : 10 ** v))) };
      return { ...own, x, y: categories ?? (height === undefined ? y : x.map(() => height)), text, ...cells };
    });
    const layout = themed(screen.colours, this.layout);
    layout.shapes = (layout.shapes ?? []).flatMap(({ band, yspan, ...shape }) => {
      if (band === undefined) return [shape];
      const edges = this.columns[band];
      return edges && edges.x.length ? [{ ...shape, path: bandPath(edges, yspan) }] : [];
    });
    if (!traces.some((trace) => trace.yaxis === "y2")) delete layout.yaxis2;  // that of the marks
    this.tenfold = layout.xaxis.type === "log";
    if (screen.span && this.steps) layout.xaxis.range = screen.span.map((end) => this.tenfold ? Math.log10(Math.max(end, 1)) : end);
    layout.font.family = screen.font;
    layout.uirevision = screen.uirevision;
    layout.datarevision = ++this.revision;
    [layout.width, layout.height] = this.size;
    const { l = 0, r = 0 } = layout.margin ?? {};
    const most = Math.max(2, Math.floor((this.size[0] - l - r) / LABEL));  // where they have no room side by side plotly turns them
    if (layout.xaxis.nticks > most) layout.xaxis.nticks = most;
    this.stale = false;
    await Plotly.react(this.div, data, layout, CONFIG);
    this.section.querySelector("h3").textContent = this.title;
    this.section.querySelector("small").textContent = this.caption;
    this.trim();
    if (!this.drawn) this.listen(screen);
    this.section.dataset.revision = this.revision;
  }

  // Hides the last number on the x axis where the edge would cut it. Its width is reckoned: to measure it takes a layout of the page.
  trim() {
    if (this.trimmed) this.trimmed.style.visibility = "";
    const last = this.trimmed = [...this.div.querySelectorAll(".xtick text")].at(-1);
    if (!last) return;
    const middle = Number(/translate\(([-\d.]+)/.exec(last.getAttribute("transform"))?.[1]);
    const wide = (line) => [...line].reduce((sum, sign) => sum + (WIDTHS[sign] ?? DIGIT), 0);
    const width = Math.max(...(last.dataset.unformatted ?? last.textContent).split("<br>").map(wide));
    if (middle + width / 2 > this.size[0]) last.style.visibility = "hidden";
  }

  listen(screen) {
    this.drawn = true;
    if (!this.steps) return;
    this.div.on("plotly_relayout", (change) => {
      const low = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0];
      const high = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
      if (low !== undefined && high !== undefined) screen.zoom([low, high].map((end) => this.position(end)));
    });
    this.div.on("plotly_doubleclick", () => screen.follow());
    this.div.on("plotly_hover", (event) => {
      if (event.event && event.xvals) screen.point(this, event.xvals[0]);
    });
    this.div.on("plotly_unhover", () => screen.point(this, null));
  }

  // An end of an axis as plotly says it, as a number in the axis' own units; dates are milliseconds.
  position(end) {
    if (typeof end === "string") return Number.isNaN(Number(end)) ? Date.parse(`${end.replace(" ", "T")}Z`) : Number(end);
    return this.tenfold ? 10 ** end : Number(end);
  }

  // The pointer is over another chart of the page: show the same place here.
  follow(Plotly, x) {
    if (!this.drawn || !this.steps) return;
    if (x === null) Plotly.Fx.unhover(this.div);
    else Plotly.Fx.hover(this.div, { xval: x }, ["xy"]);
  }
}
