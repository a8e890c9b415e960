"use strict";
// Charts in SVG, drawn at the width that they have.

const SHAPES = {
  circle: (r) => svg("circle", { r }),
  square: (r) => svg("rect", { x: -r, y: -r, width: 2 * r, height: 2 * r }),
  triangle: (r) => svg("path", { d: `M0 ${-1.2 * r}L${1.15 * r} ${0.9 * r}H${-1.15 * r}Z` }),
  diamond: (r) => svg("path", { d: `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0Z` }),
};
const DASHES = ["", "5 3", "1.5 3", "8 3 1.5 3"];
const BUDGETED = RUN.subjects.filter((s) => !isBase(s) && s.budget_nats !== null);
const VARIANTS = [...new Set(BUDGETED.map((s) => s.variant))];
const SNAP_PIXELS = 28;
const LABEL_PIXELS = 13;
const DODGE_PIXELS = 7;

function shapeOf(variant) {
  const names = Object.keys(SHAPES);
  return names[Math.max(0, VARIANTS.indexOf(variant)) % names.length];
}

function dashOf(variant) {
  return DASHES[Math.max(0, VARIANTS.indexOf(variant)) % DASHES.length];
}

/** About `n` round numbers that span [low, high]. */
function ticks(low, high, n) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / n));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => span / s <= n) ?? 10 * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i += 1) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

/**
 * Draw a chart into `host`.
 *
 * @param {object} chart x, y: {domain, label, format, ticks}; lines: [{points, band, nats or rank,
 *   dash, label, bold, key, kind}]; dots: [{x, y, nats, shape, bold, label, key}]; rules: [{y, label}].
 * @param {Function} choose called with the key of a line or dot that was clicked.
 */
function drawChart(host, chart, choose) {
  const width = Math.max(240, host.clientWidth);
  const height = Math.round(Math.min(chart.height ?? 300, width * 0.8));
  const labelled = chart.lines.some((line) => line.label);
  const margin = { left: 44, right: labelled ? 52 : 14, top: 10, bottom: 36 };
  const inner = { w: width - margin.left - margin.right, h: height - margin.top - margin.bottom };
  const [x0, x1] = chart.x.domain;
  const [y0, y1] = chart.y.domain;
  const px = (x) => margin.left + (inner.w * (x - x0)) / (x1 - x0 || 1);
  const py = (y) => margin.top + inner.h * (1 - (y - y0) / (y1 - y0 || 1));
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": chart.about,
  });

  const axes = svg("g", { class: "axes" });
  for (const y of ticks(y0, y1, Math.max(4, Math.floor(inner.h / 45)))) {
    axes.append(
      svg("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: py(y), y2: py(y) }),
      svg("text", { class: "tick y", x: margin.left - 7, y: py(y), dy: "0.32em" },
        chart.y.format(y)),
    );
  }
  for (const x of chart.x.ticks ?? ticks(x0, x1, Math.max(2, Math.floor(inner.w / 70)))) {
    axes.append(
      svg("line", { class: "tick-mark", x1: px(x), x2: px(x), y1: py(y0), y2: py(y0) + 4 }),
      svg("text", { class: "tick x", x: px(x), y: py(y0) + 17 }, chart.x.format(x)),
    );
  }
  axes.append(
    svg("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: py(y0), y2: py(y0) }),
    svg("text", { class: "axis-label", x: margin.left + inner.w / 2, y: height - 3 }, chart.x.label),
  );
  root.append(axes);

  for (const rule of chart.rules ?? []) {
    root.append(
      svg("line", { class: "rule", x1: margin.left, x2: width - margin.right,
        y1: py(rule.y), y2: py(rule.y) }),
      svg("text", { class: "rule-label", x: width - margin.right - 3, y: py(rule.y) - 5 },
        rule.label),
    );
  }
  const targets = [];
  const ends = [];
  const path = (points) => points.map(([x, y], i) =>
    `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
  const ordered = [...chart.lines].sort((a, b) => Boolean(a.bold) - Boolean(b.bold));
  for (const line of ordered) {
    const group = svg("g", { class: `series ${line.kind ?? ""} ${line.bold ? "bold" : ""}` });
    if (line.nats !== undefined) colourByBudget(group, line.nats);
    if (line.rank !== undefined) colourByRank(group, line.rank);
    if (line.band) {
      const back = [...line.band].reverse().map(([x, low]) => [x, low]);
      const front = line.band.map(([x, , high]) => [x, high]);
      group.append(svg("path", { class: "band", d: `${path([...front, ...back])}Z` }));
    }
    group.append(svg("path", { class: "line", d: path(line.points), "stroke-dasharray": line.dash }));
    root.append(group);
    if (line.points.length === 1) {
      const [[x, y]] = line.points;
      group.append(svg("circle", { class: "dot", cx: px(x), cy: py(y), r: 3 }));
    }
    if (line.label && line.points.length) {
      const [, y] = line.points[line.points.length - 1];
      ends.push({ y: py(y), line });
    }
    if (line.key !== undefined) {
      for (const [x, y] of line.points) targets.push({ x: px(x), y: py(y), at: [x, y], of: line });
    }
  }
  placeLabels(root, ends, width - margin.right + 6, margin.top, py(y0));
  const aside = dodged(chart.dots ?? []);
  for (const dot of [...chart.dots ?? []].sort((a, b) => Boolean(a.bold) - Boolean(b.bold))) {
    const mark = SHAPES[dot.shape](dot.bold ? 6.5 : 4.5);
    const [x, y] = [px(dot.x) + aside.get(dot), py(dot.y)];
    mark.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    mark.setAttribute("class", `dot ${dot.bold ? "bold" : ""}`);
    root.append(colourByBudget(mark, dot.nats));
    targets.push({ x, y, at: [dot.x, dot.y], of: dot });
  }
  const halo = svg("circle", { class: "halo", r: 8, visibility: "hidden" });
  root.append(halo);
  listen(root, targets, halo, chart, choose);
  host.replaceChildren(root);
}

/** How far each dot is moved aside, in pixels, so that those of one x do not hide each other. */
function dodged(dots) {
  const columns = Map.groupBy(dots, (dot) => dot.x);
  return new Map([...columns.values()].flatMap((column) =>
    column.map((dot, i) => [dot, DODGE_PIXELS * (i - (column.length - 1) / 2)])));
}

/** Names at the right ends of lines, pushed apart. */
function placeLabels(root, ends, x, top, bottom) {
  ends.sort((a, b) => a.y - b.y);
  let last = top - LABEL_PIXELS;
  for (const end of ends) {
    end.y = Math.max(end.y, last + LABEL_PIXELS);
    last = end.y;
  }
  let next = bottom + LABEL_PIXELS;
  for (const end of [...ends].reverse()) {
    end.y = Math.min(end.y, next - LABEL_PIXELS);
    next = end.y;
  }
  for (const { y, line } of ends) {
    const text = svg("text", { class: `end-label ${line.bold ? "bold" : ""}`, x, y, dy: "0.32em" },
      line.label);
    root.append(colourByBudget(text, line.nats));
  }
}

/** Name the nearest point under the pointer; a click chooses it. */
function listen(root, targets, halo, chart, choose) {
  const nearest = (event) => {
    const box = root.getBoundingClientRect();
    const scale = box.width / root.viewBox.baseVal.width;
    const [x, y] = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
    let best = null;
    let distance = SNAP_PIXELS;
    for (const target of targets) {
      const d = Math.hypot(target.x - x, target.y - y);
      if (d < distance) [best, distance] = [target, d];
    }
    return best;
  };
  root.addEventListener("pointermove", (event) => {
    const found = nearest(event);
    root.classList.toggle("clickable", found !== null);
    halo.setAttribute("visibility", found ? "visible" : "hidden");
    if (!found) {
      hideReadout();
      return;
    }
    halo.setAttribute("cx", found.x);
    halo.setAttribute("cy", found.y);
    const [x, y] = found.at;
    showReadout(
      new DOMRect(event.clientX + 12, event.clientY, 1, 12),
      el("p", { class: "readout-title" }, found.of.name),
      el("p", {}, `${chart.x.label}: ${chart.x.format(x)}`),
      el("p", {}, `${chart.y.label}: ${chart.y.format(y)}`),
    );
  });
  root.addEventListener("pointerleave", () => {
    halo.setAttribute("visibility", "hidden");
    hideReadout();
  });
  root.addEventListener("click", (event) => {
    const found = nearest(event);
    if (found) choose(found.of.key);
  });
}
