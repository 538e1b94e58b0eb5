// Buttons that copy the lines beside them. Where a browser gives no clipboard, they mark the lines instead.

function lines(button) {
  return button.closest(".snippet").querySelector("code");
}

function mark(code) {
  const range = document.createRange();
  range.selectNodeContents(code);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(button) {
  const code = lines(button);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    mark(code);
    button.textContent = "Marked: press Ctrl+C";
  }
}

function show(root) {
  for (const button of root.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});
document.addEventListener("htmx:afterSwap", () => show(document));
show(document);
