// Uploads with progress, copy buttons, open details that stay open, and what was typed in the playground.

const stored = (key, value) => {
  try {
    if (value === undefined) return sessionStorage.getItem(key);
    sessionStorage.setItem(key, value);
  } catch { /* a browser may refuse storage: nothing is kept then */ }
  return null;
};

// The file is chosen once the form is no longer about to be drawn again: that would undo it.
function choose(field, file) {
  if (document.querySelector("#job .htmx-request, #job.htmx-request")) {
    setTimeout(choose, 50, field, file);
    return;
  }
  for (const select of document.querySelectorAll("#training_file, #validation_file")) {
    select.append(new Option(`${file.filename} (just uploaded)`, file.id));
  }
  const select = document.getElementById(field);
  select.value = file.id;
  htmx.ajax("POST", "/dashboard/new/form", { source: select, target: "#job", swap: "outerHTML show:none" });
}

// Each input is listened to by itself: one whose dialog is open while the form is drawn again is in no page any more.
function listen() {
  for (const input of document.querySelectorAll("[data-upload]:not([data-ready])")) {
    input.dataset.ready = "";
    input.addEventListener("change", () => upload(input));
  }
}

function upload(input) {
  const field = input.dataset.upload;
  const part = (selector) => (document.getElementById(input.id) ?? input).parentElement.querySelector(selector);
  const tell = (message) => {
    part("[role=alert]").textContent = message;
    part("[role=alert]").hidden = !message;
    part("progress").hidden = true;
    part("input").disabled = false;
  };
  const file = input.files[0];
  if (!file) return;
  const body = new FormData();
  body.append("purpose", "fine-tune");
  body.append("file", file);
  const request = new XMLHttpRequest();
  request.open("POST", "/dashboard/new/upload");
  request.responseType = "json";
  request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) part("progress").value = event.loaded / event.total; });
  request.addEventListener("error", () => tell("The upload was broken off. Choose the file again."));
  request.addEventListener("load", () => {
    if (request.status !== 200 || !request.response?.id) {
      tell(request.response?.error?.message ?? `The service answered with ${request.status}. Choose the file again.`);
      return;
    }
    tell("");
    choose(field, request.response);
  });
  tell("");
  part("progress").hidden = false;
  part("progress").value = 0;
  part("input").disabled = true;
  request.send(body);
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(document.getElementById(button.dataset.copy));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

listen();
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

// A part of the page that is drawn again keeps what was folded out, and what was typed since it was asked for.
let details = new Map();
let typed = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  details = new Map([...document.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
  const sent = event.detail.requestConfig?.formData;
  const form = document.querySelector("form.maker[data-keep]");
  typed = form && sent?.has("grader_view") ? [...new FormData(form)].filter(([name, value]) => sent.has(name) && sent.get(name) !== value) : [];
});
document.addEventListener("htmx:afterSwap", () => {
  listen();
  const form = document.querySelector("form.maker[data-keep]");
  for (const [name, value] of typed) {
    const field = form?.elements[name];
    if (field?.matches?.("input:not([type=hidden]), textarea:not([hidden])")) field.value = value;
  }
  typed = [];
  for (const [id, open] of details) {
    const one = document.getElementById(id);
    if (one) one.open = open || one.open;
  }
  const problem = document.querySelector("[data-focus]");
  if (problem) { problem.removeAttribute("data-focus"); problem.scrollIntoView({ block: "start" }); problem.focus({ preventScroll: true }); }
});

// What stands in a form is kept by the browser until its window is closed. The playground brings it back by
// itself, unless an example or a row was asked for; the form of a job offers it, as after signing in again.
const kept = (form) => JSON.parse(stored(`cherry:${form.dataset.keep}`) ?? "[]");
function keep() {
  for (const form of document.querySelectorAll("form[data-keep]")) {
    const fields = [...new FormData(form)].filter(([, value]) => typeof value === "string");
    stored(`cherry:${form.dataset.keep}`, JSON.stringify(fields));
  }
}
function bring(form, path, target) {
  const fields = new FormData();
  for (const [name, value] of kept(form)) fields.append(name, value);
  for (const name of ["item", "answer"]) if (form.elements[name]) form.elements[name].value = fields.get(name) ?? "";
  htmx.ajax("POST", path, { target, swap: "outerHTML", values: fields });
}
const playground = document.getElementById("playground");
if (playground && !("fresh" in playground.dataset) && kept(playground).length) {
  bring(playground, "/dashboard/graders/form", "#grader");
}
const offer = document.querySelector("[data-bring]");
if (offer && kept(document.getElementById("job")).length) {
  offer.hidden = false;
  offer.querySelector("button").addEventListener("click", () => {
    offer.hidden = true;
    bring(document.getElementById("job"), "/dashboard/new/form", "#job");
  });
}
for (const name of ["input", "change", "htmx:afterSettle"]) document.addEventListener(name, keep);
document.addEventListener("htmx:beforeOnLoad", (event) => {
  if (event.detail.xhr.getResponseHeader("hx-redirect")?.startsWith("/dashboard/jobs/")) {
    try { sessionStorage.removeItem("cherry:job"); } catch { /* nothing was kept */ }
  }
});
