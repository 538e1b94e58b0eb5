// The slider of steps: it names steps that exist, and the field beside it is what the form sends.
const form = document.querySelector("[data-samples-filter]");
const slider = form?.querySelector("[data-steps]");

if (form && slider) {
  const field = form.elements.step;
  const steps = slider.dataset.steps.split(",").map(Number);
  const tell = () => slider.setAttribute("aria-valuetext", `step ${field.value}`);
  const place = (step) => {
    field.value = step;
    const behind = steps.findIndex((one) => one >= step);
    slider.value = behind < 0 ? steps.length - 1 : behind;
    tell();
  };
  tell();
  slider.addEventListener("input", () => { field.value = steps[slider.value]; tell(); });
  field.addEventListener("input", () => { if (field.value !== "") { const step = field.value; place(Number(step)); field.value = step; } });
  form.elements.split.addEventListener("change", () => { field.value = ""; });
  // Steps differ from split to split, and the server takes the nearest one: what it shows is the truth.
  document.body.addEventListener("htmx:afterSettle", () => {
    const shown = document.querySelector("#samples")?.dataset.step;
    if (shown) place(Number(shown));
    for (const follower of document.querySelectorAll("[data-follows]")) {
      follower.value = form.elements[follower.dataset.follows].value;
    }
  });
}
