"use strict";
// What all plots share: their colours, axes, and what is read off them below the cursor.
const drawing = (() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const isDark = () => document.documentElement.dataset.theme === "dark";
  const axis = (extra) => ({
    stroke: css("--soft"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
    grid: { stroke: css("--line"), width: 0.5 }, ticks: { stroke: css("--line"), width: 0.5 }, ...extra,
  });
  const number = (value, digits) => (value === null || value === undefined ? "-"
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));

  const reading = (head, digits) => { // what is below the cursor, policy by policy
    const box = document.createElement("div");
    box.className = "reading";
    box.hidden = true;
    return {
      hooks: {
        init: (plot) => plot.over.append(box),
        setCursor: (plot) => {
          const { left, top, idx } = plot.cursor;
          box.hidden = left < 0 || idx === null || idx === undefined || !plot.over.matches(":hover");
          if (box.hidden) return;
          const title = document.createElement("b");
          title.textContent = head(plot.data[0][idx]);
          const lines = plot.series.slice(1).map((series, index) => {
            const line = document.createElement("div");
            const swatch = document.createElement("span");
            swatch.className = "swatch";
            swatch.style.background = series.colour;
            line.append(swatch, ` ${series.label}: ${number(plot.data[index + 1][idx], digits)}`);
            return line;
          });
          box.replaceChildren(title, ...lines);
          const isRight = left > plot.over.clientWidth / 2;
          box.style.left = isRight ? "" : `${left + 14}px`;
          box.style.right = isRight ? `${plot.over.clientWidth - left + 14}px` : "";
          box.style.top = `${Math.max(0, Math.min(top, plot.over.clientHeight - box.offsetHeight))}px`;
        },
      },
    };
  };

  return { css, isDark, number, axis, reading };
})();
