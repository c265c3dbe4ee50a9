// A slider over the places of one setting and the exact number beside it. They keep step here, whatever the server is doing;
// the server is told after each move, and moves them only when the value in force is another one.

const bases = new WeakMap();

export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".hy-setting");
  const [slider, number] = root.querySelectorAll("input");
  const shown = (value) => String(data.whole ? value : Number(value.toPrecision(6)));
  const nearest = (value) => data.places.reduce((best, place, at) =>
    Math.abs(place - value) < Math.abs(data.places[best] - value) ? at : best, 0);

  function show(value, source) {
    if (source !== slider) slider.value = nearest(value);
    if (source !== number) number.value = shown(value);
    slider.ariaValueText = shown(value);
    root.querySelector("output").textContent = shown(value);
  }

  function tell(value) {
    setStateValue("wanted", { base: data.base, value });
  }

  root.querySelector(".hy-title").textContent = data.title;
  root.querySelector("label").title = data.help;
  root.querySelector(".hy-exactly span").textContent =
    `Exactly, ${data.low.toLocaleString("en")} to ${data.high.toLocaleString("en")}`;
  slider.ariaLabel = data.title;
  slider.max = data.places.length - 1;
  if (bases.get(root) !== data.base) show(bases.has(root) ? data.base : data.value);
  bases.set(root, data.base);

  slider.oninput = () => show(data.places[slider.value], slider);
  slider.onchange = () => tell(data.places[slider.value]);
  number.onchange = () => {
    const typed = Math.min(Math.max(number.valueAsNumber, data.low), data.high);
    const value = Number.isNaN(typed) ? data.places[slider.value] : data.whole ? Math.round(typed) : typed;
    show(value);
    tell(value);
  };
}
