// A number of the run, and the button that sends another one. Until somebody types, the field follows the run; then it keeps
// what was typed, and says it when the run has got another value meanwhile.

const edits = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  const form = parentElement.querySelector(".hy-field");
  const number = form.querySelector("input");
  const note = form.querySelector("output");
  const [send, follow] = form.querySelectorAll("button");
  const inForce = data.shown;
  const typed = () => number.value !== "" && number.valueAsNumber === Number(inForce) ? null : number.value;

  function followRun() {
    edits.delete(form);
    number.value = inForce;
    say();
  }

  function say() {
    const edit = edits.get(form);
    const overtaken = edit !== undefined && edit.mark !== data.mark;
    note.textContent = overtaken ? `Now ${inForce}. ${data.changed}` : "";
    follow.textContent = `Take ${inForce}`;
    follow.hidden = !overtaken;
  }

  form.querySelector("label > span").textContent = data.title;
  form.querySelector("label").title = data.help;
  send.textContent = data.button;
  send.disabled = data.closed;
  Object.assign(number, { min: data.low, max: data.high, step: data.whole ? "1" : "any" });
  const edit = edits.get(form);
  if (edit !== undefined && data.mine && number.value !== edit.sent) edit.mark = data.mark;
  const done = edit !== undefined && edit.id === data.done && number.value === edit.sent;
  if (edit === undefined || done || typed() === null || (data.mine && edit.mark !== data.mark)) followRun();
  else say();

  number.oninput = () => {
    if (typed() === null) edits.delete(form);
    else if (!edits.has(form)) edits.set(form, { mark: data.mark });
    say();
  };
  number.onkeydown = (event) => {
    if (event.key === "Escape") followRun();
  };
  follow.onclick = () => {
    followRun();
    number.focus();
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    if (edits.has(form)) Object.assign(edits.get(form), { sent: number.value, id: data.id });
    setTriggerValue("pressed", { value: number.valueAsNumber, id: data.id, rev: data.rev });
  };
}
