"use strict";
// The page of an audit; its data are documented in llm_experiment/auditing/page.py.

/** A logarithm to base 10 as the number that it is of. */
const powerText = (x) => short(10 ** x, 2);

/** The place of a curve among all, in [0, 1]. */
const place = (i) => i / Math.max(1, RUN.bought.curves.length - 1);

function drawBought() {
  const { log_budgets: budgets, curves } = RUN.bought;
  drawChart($("bought"), {
    about: "Largest probability of each behaviour against the budget, at its median price",
    height: 320,
    x: { domain: [budgets[0], budgets[budgets.length - 1]], label: "budget of an answer (nats)",
      format: powerText, ticks: ticks(budgets[0], budgets[budgets.length - 1], 5) },
    y: { domain: [0, 1], label: "largest probability", format: (y) => `${Math.round(100 * y)}%` },
    lines: curves.map(({ name, shares }, i) => ({
      points: budgets.map((x, k) => [x, shares[k]]), name, key: name,
      dash: DASHES[i % DASHES.length], rank: place(i),
    })),
  }, () => {});
  $("bought-legend").replaceChildren(...curves.map(({ name }, i) => colourByRank(
    el("span", { class: "key" }, svg("svg", { viewBox: "-16 -8 32 16", width: 28, height: 14 },
      svg("line", { x1: -16, x2: 16, y1: 0, y2: 0, "stroke-dasharray": DASHES[i % DASHES.length] })),
    name), place(i))));
}

function drawPolicy() {
  const found = RUN.policy;
  for (const id of ["prompts-figure", "positions-figure", "answers-section"]) $(id).hidden = !found;
  if (!found) return;
  const nats = [...found.by_prompt_nats].sort((a, b) => a - b);
  drawChart($("prompts"), {
    about: "Share of prompts whose answers have at most this KL",
    height: 320,
    x: { domain: [0, nats[nats.length - 1] || 1], label: "KL of an answer (nats)", format: short },
    y: { domain: [0, 1], label: "prompts", format: (y) => `${Math.round(100 * y)}%` },
    lines: [{ points: nats.map((x, i) => [x, (i + 1) / nats.length]), name: "prompts", key: "all" }],
  }, () => {});
  const curve = found.curve_nats;
  drawChart($("positions"), {
    about: "Mean KL of a step against its place in the answer",
    height: 320,
    x: { domain: [1, Math.max(2, curve.length)], label: "token of the answer", format: short },
    y: { domain: [0, Math.max(1e-9, ...curve)], label: "nats", format: short },
    lines: [{ points: curve.map((y, i) => [i + 1, y]), name: "mean over answers", key: "all" }],
  }, () => {});
}

/** One answer: where it stands in the file, what it cost, and its tokens. */
function answerElement({ line, nats, texts, kl_nats: kl, log_ratio_nats: ratio }) {
  const row = el("p", {});
  texts.forEach((text, i) => {
    const span = el("span", { class: `token k${level(kl[i])}` }, visible(text));
    if (text.trim() === "") span.classList.add("break");
    span.addEventListener("pointerover", () => showReadout(span,
      el("p", { class: "readout-title" }, el("code", {}, visible(text)), el("span", {}, `token ${i + 1}`)),
      el("dl", {}, el("dt", {}, "KL(π‖b)"), el("dd", {}, short(kl[i])),
        el("dt", {}, "log π/b"), el("dd", {}, short(ratio[i])))));
    span.addEventListener("pointerleave", hideReadout);
    row.append(span);
  });
  return el("div", { class: "turn agent" },
    el("span", { class: "speaker" }, `line ${line}`), row,
    el("span", { class: "badge" }, `${short(nats, 3)} nats`));
}

function drawCharts() {
  drawBought();
  drawPolicy();
}

drawSummary();
drawCharts();
if (RUN.policy) $("answers").append(...RUN.policy.answers.map(answerElement));
document.body.dataset.drawn = "1";
addEventListener("scroll", followScroll, { passive: true });
let drawnWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnWidth) return;
  drawnWidth = innerWidth;
  drawCharts();
});
