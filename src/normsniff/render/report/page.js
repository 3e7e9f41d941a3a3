"use strict";
// Tables sort by a click on a head and filter by text. Without this script they are plain tables.
// The document listens for all of them, so that tables may come and go.
const key = (row, column) => {
  const cell = row.cells[column];
  const number = parseFloat(cell.dataset.value);
  return Number.isNaN(number) ? cell.textContent : number;
};
const ordered = (x, y) => typeof x === "number" && typeof y === "number" ? x - y
  : typeof x !== typeof y ? (typeof x === "number" ? -1 : 1)
  : x.localeCompare(y, "en", { numeric: true });
document.addEventListener("click", (event) => {
  const head = event.target.closest?.("table.sorts thead button")?.closest("th");
  if (!head) return;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = head.closest("table").tBodies[0];
  const column = head.cellIndex;
  body.append(...[...body.rows].sort((a, b) => {
    const order = ordered(key(a, column), key(b, column));
    return up ? order : -order;
  }));
});
document.addEventListener("input", (event) => {
  const table = event.target.type === "search" ? event.target.closest("details")?.querySelector("table.sorts") : null;
  if (!table) return;
  const wanted = event.target.value.toLowerCase();
  for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
// On paper, everything is open.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
