// The slider of steps: it names steps that exist, and the field beside it is what the form sends.
// Everything is looked up anew each time: going back replaces the page's body, and this script stays.
const parts = () => {
  const form = document.querySelector("[data-samples-filter]");
  const shown = document.querySelector("#samples");
  const slider = form?.querySelector("[data-slider]");
  return slider && shown ? { form, field: form.elements.step, slider, shown } : null;
};
const stepsOf = (shown) => shown.dataset.steps.split(",").map(Number);

// Puts the slider where the list says that it stands: the server takes the nearest step that there is.
const follow = () => {
  const all = parts();
  if (!all) return;
  const { form, field, slider, shown } = all;
  const steps = stepsOf(shown);
  field.value = shown.dataset.step;
  slider.max = steps.length - 1;
  slider.disabled = steps.length < 2;
  slider.value = Math.max(0, steps.indexOf(Number(shown.dataset.step)));
  slider.setAttribute("aria-valuetext", `step ${field.value}`);
  for (const follower of document.querySelectorAll("[data-follows]")) {
    follower.value = form.elements[follower.dataset.follows].value;
  }
};

document.addEventListener("input", (event) => {
  const all = parts();
  if (!all || event.target !== all.slider) return;
  all.field.value = stepsOf(all.shown)[all.slider.value];
  all.slider.setAttribute("aria-valuetext", `step ${all.field.value}`);
});
// Splits have different steps: without a step the newest one is shown. Before htmx hears of the change.
document.addEventListener("change", (event) => {
  const all = parts();
  if (all && event.target === all.form.elements.split) all.field.value = "";
}, true);
document.addEventListener("htmx:afterSettle", follow);
document.addEventListener("htmx:historyRestore", follow);
follow();
