// Buttons in live lists, and the filter above a list. What a press does is decided by the server. Knows nothing of training.

const AGAIN_MS = 4000;

// One press is one wish: the button waits until the server's answer has changed the list, or for a while.
export function pressed(event, send) {
  const button = event.target.closest("button[data-press]");
  if (!button || button.disabled || !send) return;
  button.disabled = true;
  setTimeout(() => { button.disabled = false; }, AGAIN_MS);
  send("pressed", { what: button.dataset.press, which: button.dataset.which });
}

export function wireFilters(root) {
  for (const bar of root.querySelectorAll("[data-filters]")) {
    const list = () => root.querySelector(`[data-list="${bar.dataset.filters}"]`);
    for (const button of bar.querySelectorAll("button[data-severity]")) {
      button.onclick = () => { button.ariaPressed = button.ariaPressed !== "true"; filter(root, list()); };
    }
    for (const input of bar.querySelectorAll("select, input")) input.onchange = () => filter(root, list());
  }
}

export function filter(root, list) {
  const bar = root.querySelector(`[data-filters="${list?.dataset.list}"]`);
  if (!bar) return;
  const wanted = new Set([...bar.querySelectorAll('button[aria-pressed="true"]')].map((el) => el.dataset.severity));
  const rule = bar.querySelector("select").value;
  const openOnly = bar.querySelector("input").checked;
  let hidden = 0;
  for (const li of list.querySelectorAll("li[data-rule]")) {
    li.hidden = !wanted.has(li.dataset.toneIs) || (rule && li.dataset.rule !== rule) || (openOnly && li.dataset.open !== "true");
    hidden += li.hidden;
  }
  bar.querySelector("output").textContent = hidden ? `${hidden} hidden by the filter` : "";
}
