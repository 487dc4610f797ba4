"use strict";
// Every page: light and dark, tables that sort, words that explain themselves.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const show = () => {
    root.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
    document.dispatchEvent(new Event("theme"));
  };
  system.addEventListener("change", show);
  document.getElementById("theme")?.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    show();
  });
  show();

  const glossary = JSON.parse(document.getElementById("glossary").textContent);
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  const explain = (element, words) => {
    const text = glossary[words.trim().replace(/ [*]$/, "")];
    if (!text) return;
    element.dataset.tip = text;
    const open = () => {
      tip.textContent = text;
      tip.hidden = false;
      const box = element.getBoundingClientRect();
      const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(8, left) + scrollX}px`;
      tip.style.top = `${box.bottom + 6 + scrollY}px`;
      element.setAttribute("aria-describedby", "tip");
    };
    const close = () => {
      tip.hidden = true;
      element.removeAttribute("aria-describedby");
    };
    element.addEventListener("mouseenter", open);
    element.addEventListener("focus", open);
    element.addEventListener("mouseleave", close);
    element.addEventListener("blur", close);
  };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  const value = (text) => {
    const found = text.replace(/,/g, "").match(/[-+]?\d+(\.\d+)?/);
    return found && !/^[a-z]/i.test(text.trim()) ? Number(found[0]) : null;
  };
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a !== null && b !== null) return a - b;
    return one.localeCompare(other, "en", { numeric: true });
  };
  const sort = (table, column, heading) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.forEach((row, number) => { // a name stands for the rows below it
      if (number && !row.cells[0].textContent) row.cells[0].textContent = rows[number - 1].cells[0].textContent;
    });
    const isUp = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
    const text = (row) => row.cells[column].textContent;
    const isKnown = (row) => !["-", ""].includes(text(row).trim());
    const known = rows.filter(isKnown).sort((a, b) => compare(text(a), text(b)) * (isUp ? 1 : -1));
    body.append(...known, ...rows.filter((row) => !isKnown(row)));
  };
  for (const table of document.querySelectorAll("table")) {
    for (const [column, heading] of [...(table.tHead?.rows[0].cells ?? [])].entries()) {
      const words = heading.textContent;
      if (!words) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = words;
      heading.replaceChildren(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, column, heading));
      explain(button, words);
    }
    for (const row of table.tHead ? [] : table.tBodies[0].rows) {
      const cell = row.cells[0];
      if (!glossary[cell.textContent]) continue;
      cell.tabIndex = 0;
      explain(cell, cell.textContent);
    }
  }
  for (const word of document.querySelectorAll("dt")) {
    if (!glossary[word.textContent]) continue;
    word.tabIndex = 0;
    explain(word, word.textContent);
  }
})();
