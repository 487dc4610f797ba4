"use strict";
// The plots of a report: runs of one workload under several policies, on one clock.
(() => {
  const groups = JSON.parse(document.getElementById("runs").textContent);
  const phaseNames = ["warm-up", "middle", "cool-down"];
  const plots = [
    { id: "hit", series: "hit", range: [0, 1.02], digits: 2 },
    { id: "usage", series: "usage", range: [0, 1.02], digits: 2, beside: [["resident", [4, 3]]] },
    { id: "agents", series: "active", digits: 0, beside: [["window", [6, 4]], ["unfinished", [2, 3]]] },
    { id: "rate", series: "rate", digits: 0 },
  ];
  const parts = ["useful prefill", "recompute", "decode", "idle", "not published"];
  const partColours = ["--prefill", "--recompute", "--decode", "--idle", "--unknown"];
  const { css, isDark, number, axis, reading } = drawing;
  const colourOf = (run) => run.colours[isDark() ? 1 : 0];
  const byId = (id) => document.getElementById(id);
  const sync = uPlot.sync("time");
  const state = { group: 0, focus: 0, on: new Set() };
  const runs = () => groups[state.group].runs;
  const shown = () => runs().filter((run) => state.on.has(run.label));
  const focus = () => runs()[state.focus];
  let drawn = [];

  const shade = (plot) => { // the phases of the run that is looked at
    const { ctx } = plot;
    const { left, top, width, height } = plot.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    for (const [name, from, to] of focus().phases) {
      const [begin, end] = [plot.valToPos(from, "x", true), plot.valToPos(to, "x", true)];
      ctx.fillStyle = css(`--${name}`);
      ctx.fillRect(begin, top, end - begin, height);
    }
    ctx.restore();
  };

  const line = (run, label, dash, width) => ({
    label, stroke: colourOf(run), colour: colourOf(run), width, dash, points: { show: false },
  });

  const draw = (element, options, data) => {
    const width = element.clientWidth;
    const plot = new uPlot({ width, height: 210, legend: { show: false }, ...options }, data, element);
    drawn.push([plot, element]);
  };

  const drawTimes = () => {
    const { t } = groups[state.group];
    const end = Math.max(...shown().map((run) => run.length_s), 1);
    for (const { id, series, range, digits, beside = [] } of plots) {
      const element = byId(id);
      if (!element) continue;
      const data = [t];
      const lines = [{}];
      for (const run of shown()) {
        data.push(run.series[series]);
        lines.push(line(run, run.label, undefined, 1.8));
      }
      for (const [name, dash] of beside) {
        if (!focus().series[name] || !state.on.has(focus().label)) continue;
        data.push(focus().series[name]);
        lines.push(line(focus(), `${focus().label}, ${name}`, dash, 1.2));
      }
      draw(element, {
        cursor: { sync: { key: sync.key }, points: { size: 5 } },
        scales: { x: { time: false, range: (_, from, to) => [from, to === t.at(-1) ? end : to] }, y: range ? { range } : { range: (_, __, top) => [0, (top || 1) * 1.06] } },
        axes: [axis({ label: "time (s)", labelSize: 20, size: 34 }), axis({ size: 58 })],
        series: lines,
        hooks: { drawClear: [shade] },
        plugins: [reading((time) => `${number(time, 0)} s`, digits)],
      }, data);
    }
  };

  const drawCaps = () => {
    const element = byId("caps");
    if (!element) return;
    const capped = runs().filter((run) => run.kind === "agent_cap" && run.throughput !== null);
    const points = capped.map((run) => [run.cap, run.throughput]).sort((a, b) => a[0] - b[0]);
    if (points.length < 2) {
      element.closest("section").hidden = true;
      return;
    }
    const caps = points.map((point) => point[0]);
    const data = [caps, points.map((point) => point[1])];
    const base = { ...line(capped[0], "static cap", undefined, 1.8), points: { show: true, size: 6 } };
    base.stroke = base.colour = isDark() ? "#4aa3e0" : "#0072b2";
    base.points.fill = base.stroke;
    const lines = [{}, base];
    for (const run of shown().filter((each) => each.kind !== "agent_cap" && each.throughput !== null)) {
      data.push(caps.map(() => run.throughput));
      lines.push(line(run, run.label, ["none", "request_cap"].includes(run.kind) ? [6, 4] : undefined, 1.5));
    }
    draw(element, {
      scales: {
        x: { time: false, distr: 3, log: 2 },
        y: { range: (_, __, top) => [0, (top || 1) * 1.08] },
      },
      axes: [
        axis({ label: "static cap (agents)", labelSize: 20, size: 34, values: (_, ticks) => ticks.map((x) => x ?? "") }),
        axis({ size: 58 }),
      ],
      series: lines,
      plugins: [reading((cap) => `cap ${cap}`, 0)],
    }, data);
  };

  const drawBars = () => {
    const longest = Math.max(...shown().map((run) => run.length_s), 1);
    byId("bars").replaceChildren(...shown().map((run) => {
      const [row, name, stack, total] = ["div", "span", "span", "span"].map((tag) => document.createElement(tag));
      row.className = "bar";
      stack.className = "stack";
      name.textContent = run.label;
      total.textContent = `${number(run.length_s, 0)} s`;
      const told = [];
      for (const [index, part] of parts.entries()) {
        const seconds = run.split[part] ?? 0;
        if (!seconds) continue;
        const piece = document.createElement("i");
        piece.style.width = `${(100 * seconds) / longest}%`;
        piece.style.background = `var(${partColours[index]})`;
        piece.title = `${part}: ${number(seconds, 0)} s`;
        told.push(piece.title);
        stack.append(piece);
      }
      stack.setAttribute("role", "img");
      stack.setAttribute("aria-label", `${run.label}: ${told.join(", ")}`);
      row.append(name, stack, total);
      return row;
    }));
  };

  const key = (colour, text) => {
    const [item, swatch] = [document.createElement("span"), document.createElement("span")];
    swatch.className = "swatch";
    swatch.style.background = colour;
    item.append(swatch, text);
    return item;
  };

  const redraw = () => {
    drawn.forEach(([plot]) => plot.destroy());
    drawn = [];
    if (!focus()) state.focus = 0;
    for (const swatch of document.querySelectorAll("#chips .swatch")) {
      swatch.style.background = colourOf(runs().find((run) => run.label === swatch.dataset.label) ?? runs()[0]);
    }
    const names = focus().phases.map(([name]) => name);
    byId("phases").replaceChildren(
      names.length ? `shaded, phases of ${focus().label}: ` : "",
      ...phaseNames.filter((name) => names.includes(name)).map((name) => key(`var(--${name})`, name)),
    );
    drawTimes();
    drawCaps();
    drawBars();
  };

  const fillChips = () => {
    byId("chips").replaceChildren(...runs().map((run) => {
      const [chip, box, swatch] = ["label", "input", "span"].map((tag) => document.createElement(tag));
      chip.className = "chip";
      box.type = "checkbox";
      box.checked = state.on.has(run.label);
      swatch.className = "swatch";
      swatch.dataset.label = run.label;
      box.addEventListener("change", () => {
        if (box.checked) state.on.add(run.label);
        else state.on.delete(run.label);
        redraw();
      });
      chip.append(box, swatch, run.label);
      return chip;
    }));
  };
  const options = (select, labels, chosen) => {
    select.replaceChildren(...labels.map((label, index) => new Option(label, index, index === chosen, index === chosen)));
    select.closest("label").hidden = labels.length < 2;
  };
  const start = (group) => {
    state.group = group;
    options(byId("focus"), runs().map((run) => run.label), state.focus);
    fillChips();
    redraw();
  };

  byId("focus").addEventListener("change", (event) => { state.focus = Number(event.target.value); redraw(); });
  byId("group").addEventListener("change", (event) => start(Number(event.target.value)));
  byId("parts").replaceChildren(...parts.slice(0, 4).map((part, index) => key(`var(${partColours[index]})`, part)));
  groups[0].runs.filter((run) => run.on).forEach((run) => state.on.add(run.label));
  options(byId("group"), groups.map((group) => group.name), 0);
  byId("chips").closest("fieldset").hidden = groups[0].runs.length < 2;
  start(0);
  document.addEventListener("theme", redraw);
  let width = innerWidth;
  new ResizeObserver(() => {
    if (innerWidth === width) return;
    width = innerWidth;
    drawn.forEach(([plot, element]) => plot.setSize({ width: element.clientWidth, height: 210 }));
  }).observe(document.body);
})();
