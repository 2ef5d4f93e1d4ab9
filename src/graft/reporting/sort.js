"use strict";
// Tables can be sorted by any column: a click puts the better values on top, another the worse ones. Missing values
// stay last, equal ones keep the order of the page.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.querySelectorAll("thead th[data-column]"));
  const value = (row, column) => row.cells[column].dataset.value ?? "";
  const compare = (one, other, numeric) =>
    numeric ? Number(one) - Number(other) : one.localeCompare(other, "en", { numeric: true, sensitivity: "base" });
  for (const head of heads) {
    const column = Number(head.dataset.column);
    const numeric = head.dataset.sort === "number";
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const current = head.getAttribute("aria-sort");
      const direction = current ? (current === "ascending" ? "descending" : "ascending") : head.dataset.first;
      const sign = direction === "ascending" ? 1 : -1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction);
      const known = rows.filter((row) => value(row, column) !== "");
      known.sort((one, other) => sign * compare(value(one, column), value(other, column), numeric));
      body.append(...known, ...rows.filter((row) => value(row, column) === ""));
    });
  }
}
// The section in view is marked in the contents.
const links = new Map(
  Array.from(document.querySelectorAll("nav.contents a"), (link) => [link.hash.slice(1), link]),
);
const mark = () => {
  const line = window.innerHeight / 3;
  let current = null;
  for (const id of links.keys()) {
    if (document.getElementById(id).getBoundingClientRect().top <= line) current = id;
  }
  for (const [id, link] of links) {
    if (id !== current) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) {
      link.setAttribute("aria-current", "true");
      const bar = link.closest("ul");
      bar.scrollLeft = link.offsetLeft - (bar.clientWidth - link.offsetWidth) / 2;
    }
  }
};
document.addEventListener("scroll", mark, { passive: true });
mark();
