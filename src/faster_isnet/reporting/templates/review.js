"use strict";
// Each mask is an item; its decision is the attribute data-decision, and kept by the browser.
const items = [...document.querySelectorAll("#masks li")];
const key = "faster-isnet-review-" + document.body.dataset.key;
const keys = { a: "accept", r: "reject", d: "draw", Backspace: "" };
let current = null;
let unsaved = false;
let kept = true;

function visible() {
  return items.filter((item) => !item.hidden);
}

function moveTo(item) {
  if (!item) return;
  if (current) current.classList.remove("current");
  current = item;
  current.classList.add("current");
  current.focus({ preventScroll: true });
  current.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const shown = visible();
  const place = shown.indexOf(current);
  moveTo(shown[Math.min(Math.max(place + by, 0), shown.length - 1)]);
}

function columns() {
  const shown = visible();
  return shown.filter((item) => item.offsetTop === shown[0].offsetTop).length;
}

function remember() {
  const made = items.map((item) => [item.dataset.cells, item.dataset.decision || ""]);
  try {
    localStorage.setItem(key, JSON.stringify(made.filter((each) => each[1])));
  } catch (error) {
    kept = false;
    console.info("the browser keeps no decisions, save them: " + error.message);
  }
}

function recall() {
  try {
    const made = new Map(JSON.parse(localStorage.getItem(key) || "[]"));
    for (const item of items) {
      if (made.has(item.dataset.cells)) item.dataset.decision = made.get(item.dataset.cells);
    }
  } catch (error) {
    console.info("earlier decisions cannot be read: " + error.message);
  }
}

function tell() {
  const count = (decision) => items.filter((item) => item.dataset.decision === decision).length;
  const [accepted, rejected, drawn] = ["accept", "reject", "draw"].map(count);
  document.getElementById("state").textContent =
    `${accepted + rejected + drawn} of ${items.length} decided: ` +
    `${accepted} accepted, ${rejected} rejected, ${drawn} to draw`;
  for (const button of document.querySelectorAll(".choices button")) {
    const chosen = button.closest("li").dataset.decision === button.value;
    button.setAttribute("aria-pressed", String(chosen));
  }
}

function decide(item, decision) {
  if (decision) item.dataset.decision = decision;
  else delete item.dataset.decision;
  unsaved = true;
  remember();
  tell();
}

function save() {
  const decided = items.filter((item) => item.dataset.decision);
  const lines = decided.map((item) => `${item.dataset.cells},${item.dataset.decision}`);
  const text = ["image,mask,decision", ...lines, ""].join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "mask_review.csv";
  link.click();
  unsaved = false;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
  if (event.key in steps) step(steps[event.key]);
  else if (event.key in keys) {
    decide(current, keys[event.key]);
    if (keys[event.key]) step(1);
  } else if (event.key === "s") save();
  else return;
  event.preventDefault();
});

document.getElementById("masks").addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (!item) return;
  const decision = event.target.value;
  if (decision) decide(item, item.dataset.decision === decision ? "" : decision);
  moveTo(item);
});

document.getElementById("show").addEventListener("change", (event) => {
  for (const item of items) {
    item.hidden =
      (event.target.value === "implausible" && item.dataset.plausible === "yes") ||
      (event.target.value === "undecided" && Boolean(item.dataset.decision));
  }
  moveTo(visible()[0]);
});

document.getElementById("save").addEventListener("click", save);
window.addEventListener("beforeunload", (event) => {
  if (unsaved && !kept) event.preventDefault();
});

recall();
tell();
if (items.length) moveTo(items[0]);
