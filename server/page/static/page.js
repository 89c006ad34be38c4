// What the page does better with JavaScript; all of it works without.
//
// A form is posted as JSON with the session's token in a header; the answer is either where to go
// next, or the page again with what is wrong. Knows forms and nothing of memories.
"use strict";

const CSRF_HEADER = "X-CSRF-Token";

function fieldsOf(form, submitter) {
  const fields = {};
  for (const [name, value] of new FormData(form, submitter)) {
    if (typeof value !== "string") continue;
    if (!(name in fields)) fields[name] = value;
    else if (Array.isArray(fields[name])) fields[name].push(value);
    else fields[name] = [fields[name], value];
  }
  return fields;
}

async function send(form, fields) {
  const token = fields.csrf || "";
  delete fields.csrf;
  // Not form.action: a field of that name would stand before it.
  const answer = await fetch(form.getAttribute("action"), {
    method: "POST",
    headers: { "Content-Type": "application/json", [CSRF_HEADER]: token },
    body: JSON.stringify(fields),
    credentials: "same-origin",
  });
  const next = answer.headers.get("X-Memdb-Location");
  if (next) {
    const here = location.pathname + location.search;
    location.assign(next);
    // Only the anchor differs: the browser would stay where it is.
    if (here === next.split("#")[0]) location.reload();
    return;
  }
  show(await answer.text());
}

// The page that came back instead: its content takes the place of this one's.
function show(html) {
  const made = new DOMParser().parseFromString(html, "text/html");
  const main = made.getElementById("main");
  if (!main) throw new Error("the answer is no page of this server");
  document.getElementById("main").replaceWith(main);
  document.title = made.title;
  ready(main);
  const wrong = main.querySelector("[role=alert]");
  if (wrong) wrong.setAttribute("tabindex", "-1");
  (wrong || main).focus();
  window.scrollTo(0, 0);
}

function onSubmit(event) {
  const form = event.target;
  if (form.getAttribute("method") !== "post" || "plain" in form.dataset) return;
  event.preventDefault();
  const button = event.submitter;
  const fields = fieldsOf(form, button); // before the button is disabled: it may be one of them
  if (button) button.disabled = true;
  send(form, fields).catch((error) => {
    if (button) button.disabled = false;
    complain("memdb does not answer; is it still running? Nothing is known to have changed.");
    throw error;
  });
}

function complain(text) {
  const note = document.createElement("div");
  note.className = "note problem";
  note.setAttribute("role", "alert");
  note.append(Object.assign(document.createElement("p"), { textContent: text }));
  document.getElementById("main").prepend(note);
}

// A message that is there when a page loads is not read out: it has to come in.
function readOut(main) {
  const said = main.querySelector("#said");
  if (!said || !said.firstElementChild) return;
  const parts = [...said.childNodes];
  said.replaceChildren();
  setTimeout(() => said.append(...parts), 60);
}

function ready(main) {
  readOut(main);
  for (const button of main.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }
}

function onKey(event) {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    const open = event.target.closest("details[open].menu, details[open].sure");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  } else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const box = document.getElementById("q");
    if (box) {
      event.preventDefault();
      box.focus();
    }
  }
}

document.addEventListener("submit", onSubmit);
document.addEventListener("keydown", onKey);
ready(document.getElementById("main"));
