"use strict";
// The grid points of a sweep, one at a time: makespan against the static cap, and the other policies beside it.
(() => {
  const points = JSON.parse(document.getElementById("points").textContent);
  const { isDark, axis, number, reading } = drawing;
  const element = document.getElementById("knee");
  const select = document.getElementById("point");
  let plot = null;

  const draw = () => {
    plot?.destroy();
    const { caps, others } = points[select.selectedIndex];
    const colour = isDark() ? "#4aa3e0" : "#0072b2";
    const along = caps.map(([cap]) => cap);
    const line = (label, stroke, extra) => ({ label, stroke, colour: stroke, width: 1.8, points: { show: false }, ...extra });
    plot = new uPlot({
      width: element.clientWidth, height: 260, legend: { show: false },
      scales: { x: { time: false, distr: 3, log: 2 }, y: { range: (_, __, top) => [0, (top || 1) * 1.08] } },
      axes: [
        axis({ label: "static cap (agents)", labelSize: 20, size: 34, values: (_, ticks) => ticks.map((x) => x ?? "") }),
        axis({ size: 58 }),
      ],
      series: [
        {},
        line("static cap", colour, { points: { show: true, size: 6, fill: colour } }),
        ...others.map(([label, , colours]) => line(label, colours[isDark() ? 1 : 0], label === "none" ? { dash: [6, 4] } : {})),
      ],
      plugins: [reading((cap) => `cap ${cap}`, 1)],
    }, [along, caps.map(([, value]) => value), ...others.map(([, value]) => along.map(() => value))], element);
    const key = (text, stroke) => {
      const [item, swatch] = [document.createElement("span"), document.createElement("span")];
      swatch.className = "swatch";
      swatch.style.background = stroke;
      item.append(swatch, text);
      return item;
    };
    document.getElementById("beside").replaceChildren(
      key("static caps", colour),
      ...others.map(([label, value, colours]) => key(`${label}: ${number(value, 1)} s`, colours[isDark() ? 1 : 0])),
    );
  };

  select.replaceChildren(...points.map(({ name }) => new Option(name)));
  if (points.length < 2) select.closest(".controls").style.display = "none";
  select.addEventListener("change", draw);
  document.addEventListener("theme", draw);
  draw();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    plot.setSize({ width: element.clientWidth, height: 260 });
  });
})();
