// The form that unlocks steering, and the button that locks it again. The code goes to the server by itself: it never
// becomes part of a Streamlit session, and a page learns nothing but whether it was right.

async function post(path, fields) {
  const answer = await fetch(path, { method: "POST", body: new URLSearchParams(fields), credentials: "same-origin" });
  return answer.json();
}

export default function ({ parentElement, data }) {
  const form = parentElement.querySelector("form");
  const said = parentElement.querySelector("output");
  form.dataset.held = data.held ? "1" : "0";
  form.onsubmit = async (event) => {
    event.preventDefault();
    said.textContent = "";
    try {
      const fields = data.held ? {} : { code: form.elements.code.value, who: form.elements.who.value };
      const answer = await post(data.held ? "/access/lock" : "/access/unlock", fields);
      if (answer.ok) location.reload();
      else said.textContent = answer.said;
    } catch {
      said.textContent = "The dashboard server does not answer.";
    }
  };
}
