"use strict";
// The page: what is chosen, kept in the address, and everything drawn from it.

const FACETS = ["variant", "budget", "seed", "length"];
const FACET_WEIGHTS = { variant: 8, budget: 4, seed: 2, length: 1 };
const TRAINING = [
  ["return_mean", "return of an episode"],
  ["spent_nats_mean", "KL spent in an episode (nats)"],
  ["empty_share", `${RUN.behaviour.turn} turns`],
  ["entropy_nats", "entropy of a step (nats)"],
];
const BESIDE_BASE = "base";

/** Everything that can be read: a subject at a length. */
const ENTRIES = RUN.subjects.flatMap((subject) => subject.evaluations.map((evaluation) => ({
  subject, evaluation, base: isBase(subject), variant: subject.variant,
  budget: subject.budget_nats, seed: subject.seed, length: evaluation.n_tokens,
})));
const AGENT_ENTRIES = ENTRIES.some((e) => !e.base) ? ENTRIES.filter((e) => !e.base) : ENTRIES;

/** What is chosen. `entry` is null if nothing is evaluated yet. */
const state = { entry: null, beside: BESIDE_BASE, episode: 0, token: null, colour: "kl_nats" };
let drawing = 0;
/** What brings each control up to date with the choice. */
const updaters = [];

// ------------------------------------------------------------------ the choice

/** Where the page starts: the main variant at its largest budget. */
function firstEntry() {
  const [first] = AGENT_ENTRIES;
  if (!first) return null;
  const same = AGENT_ENTRIES.filter((e) => e.variant === first.variant);
  return same.reduce((best, e) => ((e.budget ?? 0) > (best.budget ?? 0) ? e : best), same[0]);
}

function findEntry(name, length) {
  return ENTRIES.find((e) => e.subject.name === name && e.length === length)
    ?? ENTRIES.find((e) => e.subject.name === name) ?? null;
}

function nShown(entry) {
  return entry.evaluation.episodes.spent_nats.length;
}

/** The choice that the address names, as far as it can be had. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const integer = (name) => (/^\d+$/.test(given.get(name) ?? "") ? Number(given.get(name)) : null);
  state.entry = findEntry(given.get("agent"), integer("length")) ?? firstEntry();
  if (!state.entry) return;
  state.beside = ENTRIES.some((e) => e.subject.name === given.get("beside"))
    ? given.get("beside") : BESIDE_BASE;
  state.episode = Math.min(integer("episode") ?? 0, nShown(state.entry) - 1);
  const token = integer("token");
  state.token = token !== null && token < state.entry.length ? token : null;
  state.colour = given.get("colour") in COLOURS ? given.get("colour") : "kl_nats";
}

function writeAddress() {
  const { entry, beside, episode, token, colour } = state;
  const parts = { agent: entry.subject.name, length: entry.length, episode };
  if (beside !== BESIDE_BASE) parts.beside = beside;
  if (colour !== "kl_nats") parts.colour = colour;
  if (token !== null) parts.token = token;
  history.replaceState(null, "", `#${new URLSearchParams(parts)}`);
}

/** Change the choice and draw it. */
function choose(changes) {
  Object.assign(state, changes);
  if (!("token" in changes)) state.token = null;
  state.episode = Math.max(0, Math.min(state.episode, nShown(state.entry) - 1));
  writeAddress();
  draw();
}

function chooseSubject(name) {
  const entry = findEntry(name, state.entry?.length);
  if (entry) choose({ entry });
}

/** The entry with a value of a facet that keeps as much as possible of the others. */
function withFacet(facet, value) {
  const score = (e) => FACETS.reduce(
    (sum, f) => sum + (e[f] === state.entry[f] ? FACET_WEIGHTS[f] : 0), 0);
  return AGENT_ENTRIES.filter((e) => e[facet] === value)
    .reduce((best, e) => (best === null || score(e) > score(best) ? e : best), null);
}

// ------------------------------------------------------------------ the filters

const facetTexts = {
  variant: (value) => value,
  budget: (value) => (value === null ? "none" : short(value)),
  seed: (value) => String(value),
  length: (value) => String(value),
};
const facetTitles = { variant: "Agent", budget: "Budget (nats)", seed: "Seed", length: "Tokens" };

function buildFilters() {
  const form = $("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const facet of FACETS) {
    const values = [...new Set(AGENT_ENTRIES.map((e) => e[facet]))];
    if (facet === "budget") values.sort((a, b) => (a ?? Infinity) - (b ?? Infinity));
    if (facet === "seed" || facet === "length") values.sort((a, b) => a - b);
    const chips = values.map((value, i) => {
      const input = el("input", { type: "radio", name: facet, value: i,
        onchange: () => choose({ entry: withFacet(facet, value) }) });
      const label = el("label", { class: "chip" }, input, el("span", {}, facetTexts[facet](value)));
      if (facet === "budget") colourByBudget(label, value);
      return { value, input };
    });
    form.append(el("fieldset", { id: `filter-${facet}` },
      el("legend", {}, facetTitles[facet]), ...chips.map(({ input }) => input.parentNode)));
    updaters.push(() => chips.forEach(({ value, input }) => {
      input.checked = state.entry[facet] === value;
      const before = FACETS.slice(0, FACETS.indexOf(facet));
      input.disabled = !AGENT_ENTRIES.some((e) => e[facet] === value
        && before.every((f) => e[f] === state.entry[f]));
    }));
  }
  const beside = el("select", { id: "beside", name: "beside",
    onchange: (event) => choose({ beside: event.target.value, token: state.token }) });
  for (const subject of new Set(ENTRIES.map((e) => e.subject))) {
    beside.append(el("option", { value: subject.name }, subjectText(subject)));
  }
  form.append(el("fieldset", {}, el("legend", {}, "Beside"), beside));
  updaters.push(() => { beside.value = besideEntry()?.subject.name ?? ""; });
}

/** What stands beside the chosen agent. */
function besideEntry() {
  return findEntry(state.beside, state.entry.length) ?? ENTRIES[0];
}

/** The controls of the episode: made once, so that they keep the focus. */
function buildEpisodes() {
  const number = el("input", { id: "episode", type: "number", min: 0,
    onchange: (event) => choose({ episode: Number(event.target.value) || 0 }) });
  const bars = el("div", { class: "episode-bars", role: "group", "aria-label": "episodes" });
  const shown = el("span", {});
  $("episodes").append(
    el("label", { for: "episode" }, "Episode"),
    el("button", { type: "button", "aria-label": "previous episode",
      onclick: () => choose({ episode: state.episode - 1 }) }, "‹"),
    number,
    el("button", { type: "button", "aria-label": "next episode",
      onclick: () => choose({ episode: state.episode + 1 }) }, "›"),
    bars,
    el("span", { class: "faint" }, shown, "; height: KL spent; ",
      el("span", { class: "silent-key" }), ` ${RUN.behaviour.episode}`),
  );
  let drawn = null;
  updaters.push(() => {
    const n = nShown(state.entry);
    const { n_episodes: all } = state.entry.evaluation;
    if (drawn !== state.entry) bars.replaceChildren(...episodeBars(state.entry));
    drawn = state.entry;
    [...bars.children].forEach((bar, i) => {
      if (i === state.episode) bar.setAttribute("aria-current", "true");
      else bar.removeAttribute("aria-current");
    });
    number.max = n - 1;
    number.value = state.episode;
    shown.textContent = n < all ? `the first ${n} of ${all}` : `all ${n}`;
  });
}

/** A button for each episode, as high as what it spent. */
function episodeBars({ evaluation, subject }) {
  const { spent_nats: spent, silent } = evaluation.episodes;
  const most = Math.max(subject.budget_nats ?? 0, ...spent) || 1;
  return spent.map((nats, i) => {
    const bar = el("span", { class: "bar" });
    bar.style.setProperty("--part", (nats / most).toFixed(4));
    return el("button", {
      type: "button",
      class: silent[i] ? "silent" : "",
      "aria-label": `episode ${i}: ${short(nats)} nats${silent[i] ? `, ${RUN.behaviour.episode}` : ""}`,
      title: `episode ${i}`,
      onclick: () => choose({ episode: i }),
    }, bar);
  });
}

// ------------------------------------------------------------------ the drawing

const panes = [el("article", { class: "pane agent" }), el("article", { class: "pane beside" })];

async function drawPanes() {
  drawing += 1;
  const mine = drawing;
  const entries = [state.entry, besideEntry()];
  const numbers = await Promise.all(entries.map((e) => episodesOf(e.evaluation)));
  if (mine !== drawing) return;
  entries.forEach((entry, k) => {
    const episode = Math.min(state.episode, nShown(entry) - 1);
    drawEpisode(panes[k], {
      ...entry, episode, numbers: numbers[k], colour: state.colour,
      token: k === 0 ? state.token : null,
      onChoose: (i) => {
        if (k !== 0) return;
        state.token = i;
        writeAddress();
      },
    });
  });
  if (state.token !== null && document.activeElement === document.body) {
    panes[0].focusToken(state.token);
  }
  document.body.dataset.drawn = String(mine);
}

function drawSilence() {
  const length = state.entry?.length;
  const at = ENTRIES.filter((e) => e.length === length);
  const base = at.find((e) => e.base);
  const form = RUN.closed_form;
  const top = BUDGETS[BUDGETS.length - 1] || 1;
  const lines = form ? [{
    points: form.budgets_nats.map((b, i) => [b, form.shares[i]]), kind: "predicted", dash: "6 3",
  }] : [];
  const { episode } = RUN.behaviour;
  $("silence-title").textContent = `${episode[0].toUpperCase()}${episode.slice(1)} episodes against `
    + `budget${length ? `, episodes of ${length} tokens` : ""}`;
  drawChart($("silence"), {
    about: `Share of ${RUN.behaviour.episode} episodes against the budget; a dot an agent`,
    height: 320,
    x: { domain: [-0.04 * top, 1.05 * top], label: "budget (nats)", format: short,
      ticks: ticks(0, top, 6) },
    y: { domain: [0, 1], label: RUN.behaviour.episode, format: (y) => `${Math.round(100 * y)}%` },
    lines,
    rules: base ? [{ y: base.evaluation.silent_share, label: "base policy" }] : [],
    dots: at.filter((e) => !e.base && e.budget !== null).map((e) => ({
      x: e.budget, y: e.evaluation.silent_share, nats: e.budget, shape: shapeOf(e.variant),
      bold: e.subject === state.entry.subject, key: e.subject.name, name: subjectText(e.subject),
    })),
  }, chooseSubject);
}

/** Medians over all episodes; the band is the selected agent's quartiles. */
async function drawLeft() {
  const { entry } = state;
  if (!entry) return;
  const { length, variant } = entry;
  if (entry.budget === null) {
    $("left-title").textContent = `Budget left over time: ${variant}`;
    $("left").replaceChildren(el("p", { class: "faint" }, "This agent has no budget."));
    return;
  }
  const same = ENTRIES.filter((e) => !e.base && e.length === length && e.variant === variant
    && e.budget !== null && e.seed === entry.seed);
  const quartiles = await Promise.all(same.map((e) => quartilesOf(e.evaluation)));
  if (entry !== state.entry) return;
  const start = entry.evaluation.prompt_length;
  const lines = same.map((e, k) => {
    const [low, median, high] = quartiles[k];
    const bold = e.subject === entry.subject;
    const steps = [...median.keys()].filter((i) => i >= start);
    return {
      points: steps.map((i) => [i, median[i]]),
      band: bold ? steps.map((i) => [i, low[i], high[i]]) : undefined,
      nats: e.budget, bold, key: e.subject.name, name: `${subjectText(e.subject)}, median`,
      label: short(e.budget),
    };
  });
  const top = Math.max(...same.map((e) => e.budget)) || 1;
  $("left-title").textContent =
    `Budget left over time: ${variant}, seed ${entry.seed}; band: quartiles`;
  drawChart($("left"), {
    about: "Median budget left at every token of an episode",
    height: 320,
    x: { domain: [start, length], label: "token of the episode", format: short },
    y: { domain: [0, top], label: "nats left", format: short },
    lines,
  }, chooseSubject);
}

function drawTraining() {
  const host = $("training");
  const subjects = RUN.subjects.filter((s) => s.updates.agent_steps?.length);
  if (!host.childElementCount) {
    for (const [, title] of TRAINING) {
      host.append(el("figure", {}, el("figcaption", {}, title), el("div", { class: "chart" })));
    }
  }
  TRAINING.forEach(([name, title], k) => {
    const lines = subjects.map((subject) => ({
      points: subject.updates.agent_steps.map((x, i) => [x, subject.updates[name][i]])
        .filter(([x, y]) => x !== null && y !== null),
      nats: subject.budget_nats, dash: dashOf(subject.variant), key: subject.name,
      name: subjectText(subject), bold: subject === state.entry?.subject,
    }));
    const ys = lines.flatMap((line) => line.points.map(([, y]) => y));
    const share = name === "empty_share";
    drawChart(host.children[k].lastChild, {
      about: `${title} over training`,
      height: 230,
      x: { domain: [0, Math.max(1, ...subjects.flatMap((s) => s.updates.agent_steps))],
        label: "tokens of the agent", format: thousands },
      y: { domain: [Math.min(0, ...ys), share ? 1 : Math.max(1e-9, ...ys) * 1.04],
        label: title, format: share ? percentRound : short },
      lines,
    }, chooseSubject);
  });
}

const percentRound = (y) => `${Math.round(100 * y)}%`;
const thousands = (x) => (x >= 1e6 ? `${short(x / 1e6)}M` : x >= 1e3 ? `${short(x / 1e3)}k` : short(x));

function drawLegend() {
  const legend = $("budget-legend");
  for (const nats of BUDGETS) {
    legend.append(colourByBudget(el("span", { class: "key" }, svg("svg",
      { viewBox: "-8 -8 16 16", width: 14, height: 14 }, SHAPES.circle(6)),
    budgetText(nats)), nats));
  }
  for (const variant of VARIANTS) {
    legend.append(el("span", { class: "key plain" },
      svg("svg", { viewBox: "-16 -8 32 16", width: 28, height: 14 },
        svg("line", { x1: -16, x2: 16, y1: 0, y2: 0, "stroke-dasharray": dashOf(variant) }),
        SHAPES[shapeOf(variant)](5)), variant));
  }
  if (RUN.subjects.some((s) => s.budget_nats === null)) {
    legend.append(el("span", { class: "key plain" },
      svg("svg", { viewBox: "-16 -8 32 16", width: 28, height: 14 },
        svg("line", { x1: -16, x2: 16, y1: 0, y2: 0 })), "without a budget (training only)"));
  }
  if (RUN.closed_form) {
    legend.append(el("span", { class: "key predicted" },
      svg("svg", { viewBox: "-16 -8 32 16", width: 28, height: 14 },
        svg("line", { x1: -16, x2: 16, y1: 0, y2: 0, "stroke-dasharray": "6 3" })),
      "closed form: one purchase"));
  }
}

// ------------------------------------------------------------------ the rest

function drawOnce() {
  drawSummary();
  if (!RUN.tables.length) $("tables").append(el("p", { class: "faint" }, "No agent is evaluated yet."));
  drawLegend();
}

function drawCharts() {
  drawSilence();
  drawLeft();
  drawTraining();
}

function draw() {
  updaters.forEach((update) => update());
  drawPanes();
  drawCharts();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") hideReadout();
  if (event.target.closest?.("input[type=number], select")) return;
  if (event.key === "j") choose({ episode: state.episode + 1 });
  if (event.key === "k") choose({ episode: state.episode - 1 });
  if (event.key === "c") {
    const { costliest, focusToken } = panes[0];
    if (costliest?.length) focusToken(costliest[(costliest.indexOf(state.token) + 1) % costliest.length]);
  }
}

function start() {
  drawOnce();
  if (ENTRIES.length) {
    $("panes").append(...panes);
    buildFilters();
    buildEpisodes();
    updaters.push(buildScale($("scale"),
      (colour) => choose({ colour, token: state.token }), () => state.colour));
    readAddress();
    draw();
    document.addEventListener("keydown", onKey);
    addEventListener("hashchange", () => {
      readAddress();
      draw();
    });
  } else {
    $("transcripts").hidden = true;
    drawCharts();
  }
  addEventListener("scroll", followScroll, { passive: true });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    drawCharts();
  });
}

start();
