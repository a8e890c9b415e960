"use strict";
// The run's data, as llm_experiment/page/data.py documents them, and what all scripts share.
// Text of the run reaches the page only through `append`, which makes text nodes of strings.

const RUN = JSON.parse(document.getElementById("run-data").textContent);
const WRITERS = ["nobody", "agent", "partner"];
const MARK_WRITER = 3;
const MARK_EMPTY = 4;
const N_MARKS_BYTES = 1;
const N_NUMBER_BYTES = 4;
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick: f`) and children; strings become text. */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same in SVG. */
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Blocks of packed arrays stand behind this script: they are there once the page has been read. */
const BLOCKS = document.getElementsByClassName("packed");
const allRead = new Promise((resolve) => {
  document.addEventListener("DOMContentLoaded", resolve, { once: true });
});

/** The bytes of the packed array, or several, of a block. */
async function unpack(block) {
  await allRead;
  const bytes = Uint8Array.from(atob(BLOCKS[block].textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

const unpacked = new Map();

/** `make()` once for each key. */
function once(key, make) {
  if (!unpacked.has(key)) unpacked.set(key, make());
  return unpacked.get(key);
}

/** The numbers of an evaluation's episodes: `number(plane, episode, token)`, and more. */
function episodesOf(evaluation) {
  return once(evaluation, async () => {
    const buffer = await unpack(evaluation.packed);
    const n = evaluation.episodes.spent_nats.length;
    const t = evaluation.n_tokens;
    const planes = {};
    evaluation.planes.forEach((name, i) => {
      planes[name] = new Float32Array(buffer, i * n * t * N_NUMBER_BYTES, n * t);
    });
    const start = evaluation.planes.length * n * t * N_NUMBER_BYTES;
    const tokens = new Uint32Array(buffer, start, n * t);
    const marks = new Uint8Array(buffer, start + n * t * N_NUMBER_BYTES, n * t * N_MARKS_BYTES);
    return {
      number: (name, episode, i) => (planes[name] ? planes[name][episode * t + i] : NaN),
      text: (episode, i) => RUN.token_texts[tokens[episode * t + i]],
      writer: (episode, i) => WRITERS[marks[episode * t + i] & MARK_WRITER],
      empty: (episode, i) => (marks[episode * t + i] & MARK_EMPTY) > 0,
    };
  });
}

/** Quartiles of the budget left at every position over all episodes: three arrays. */
function quartilesOf(evaluation) {
  return once(`quartiles ${evaluation.budget_quartiles}`, async () => {
    const all = new Float32Array(await unpack(evaluation.budget_quartiles));
    const t = evaluation.n_tokens;
    return [0, 1, 2].map((i) => all.subarray(i * t, (i + 1) * t));
  });
}

/** A number to some digits, with a true minus sign. */
function short(number, digits = 4) {
  if (Number.isNaN(number)) return "–";
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  return String(Number(number.toPrecision(digits))).replaceAll("-", "−");
}

function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

function budgetText(nats) {
  return nats === null ? "none" : `${short(nats)} nats`;
}

function isBase(subject) {
  return Object.keys(subject.updates).length === 0 && subject.trained_at_n_tokens === null;
}

/** What to call a subject, in full. */
function subjectText(subject) {
  if (isBase(subject)) return "Base policy";
  const variant = subject.variant[0].toUpperCase() + subject.variant.slice(1);
  const budget = subject.budget_nats === null ? "" : ` of ${budgetText(subject.budget_nats)}`;
  return `${variant}${budget}, seed ${subject.seed}`;
}

const BUDGETS = [...new Set(RUN.subjects.map((s) => s.budget_nats))]
  .filter((nats) => nats !== null)
  .sort((a, b) => a - b);

/** The place of a budget among all, in [0, 1]: what its colour is made from. */
function rank(nats) {
  if (nats === null) return 1;
  return BUDGETS.length < 2 ? 0 : BUDGETS.indexOf(nats) / (BUDGETS.length - 1);
}

/** Give an element the colour of a budget; no budget is grey. */
function colourByBudget(node, nats) {
  if (nats !== null) return colourByRank(node, rank(nats));
  node.classList.add("unbudgeted");
  return node;
}

/** Give an element the colour of a place in [0, 1]. */
function colourByRank(node, place) {
  node.classList.add("ranked");
  node.style.setProperty("--rank", place.toFixed(3));
  return node;
}

// ------------------------------------------------------------------ the readout

const readout = document.getElementById("readout");

let anchor = null;

/** Show `children` beside `place`: an element, or a rectangle of the window. */
function showReadout(place, ...children) {
  readout.replaceChildren(...children);
  readout.hidden = false;
  anchor = place;
  placeReadout();
}

/** Keep the readout beside its element; it cannot follow a mere rectangle. */
function followScroll() {
  if (readout.hidden) return;
  if (anchor instanceof Element) placeReadout();
  else hideReadout();
}

function placeReadout() {
  const rectangle = anchor instanceof Element ? anchor.getBoundingClientRect() : anchor;
  const gap = 8;
  const { width, height } = readout.getBoundingClientRect();
  const left = Math.min(Math.max(gap, rectangle.left), innerWidth - width - gap);
  const below = rectangle.bottom + gap;
  const top = below + height > innerHeight ? rectangle.top - height - gap : below;
  readout.style.setProperty("--left", `${Math.max(gap, left)}px`);
  readout.style.setProperty("--top", `${Math.max(gap, top)}px`);
}

function hideReadout() {
  readout.hidden = true;
}
