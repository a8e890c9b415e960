"use strict";
// One episode as turns of tokens: colours for costs, numbers on demand, keys to walk along it.

const LEVELS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];
const COLOURS = {
  kl_nats: "KL charged",
  surprise_nats: "surprise −log b",
};
const N_COSTLIEST = 3;
const CONTROL = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}]/gu;

/** The level of a cost on the scale: 0 for next to nothing. */
function level(nats) {
  return LEVELS.filter((least) => nats >= least).length;
}

/** A token's text as it is shown: line breaks visible, invisible characters named. */
function visible(text) {
  if (text === "") return "∅";
  return text.replace(CONTROL, (char) => {
    if (char === "\n") return "⏎";
    return `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/** A cost of a token; NaN where the agent did not write it. */
function cost(numbers, name, episode, i) {
  if (numbers.writer(episode, i) !== "agent" || i < numbers.promptLength) return NaN;
  if (name === "kl_nats") return numbers.number("kl_nats", episode, i);
  return numbers.number("log_ratio_nats", episode, i) - numbers.number("log_probs", episode, i);
}

/** All rows of a token's readout: [title, value, about]. */
function tokenRows(numbers, episode, i) {
  const own = numbers.writer(episode, i) === "agent" && i >= numbers.promptLength;
  const rows = [];
  for (const plane of RUN.planes) {
    if (plane.agent_only && !own) continue;
    const value = numbers.number(plane.name, episode, i);
    if (Number.isNaN(value)) continue;
    rows.push([plane.name, plane.title, short(value), plane.about]);
    if (plane.name === "log_probs") {
      rows.push(["surprise_nats", "−log b", short(cost(numbers, "surprise_nats", episode, i)),
        "The base policy's surprise at the token."]);
    }
  }
  return rows;
}

/** The readout of a token: its text, who wrote it where, and its numbers. */
function tokenReadout(numbers, episode, i) {
  const writer = numbers.writer(episode, i);
  const names = { nobody: "prompt", agent: RUN.speakers.agent, partner: RUN.speakers.partner };
  const who = i < numbers.promptLength ? "prompt" : names[writer];
  const list = el("dl", {});
  for (const [name, title, value, about] of tokenRows(numbers, episode, i)) {
    list.append(el("dt", { title: about }, title), el("dd", { "data-name": name }, value));
  }
  return [
    el("p", { class: "readout-title" },
      el("code", {}, visible(numbers.text(episode, i))),
      el("span", {}, `${who}, token ${i}`)),
    list,
  ];
}

/**
 * Draw an episode.
 *
 * @param {HTMLElement} host to fill.
 * @param {object} view subject, evaluation, numbers, episode, colour, token (chosen, or null), and
 *   onChoose, called with a token when it is chosen.
 */
function drawEpisode(host, view) {
  const { evaluation, episode } = view;
  const numbers = { ...view.numbers, promptLength: evaluation.prompt_length };
  const t = evaluation.n_tokens;
  const spans = [];
  const turns = el("div", {
    class: "turns", role: "group", "aria-label": `${subjectText(view.subject)}, episode ${episode}`,
  });
  const impossible = evaluation.episodes.first_impossible[episode];
  let row = null;
  let writer = null;
  for (let i = 0; i < t; i += 1) {
    if (numbers.writer(episode, i) !== writer) {
      writer = numbers.writer(episode, i);
      row = el("p", {});
      const empty = numbers.empty(episode, i) && i >= evaluation.prompt_length;
      const name = writer === "nobody" ? "" : RUN.speakers[writer];
      turns.append(el("div", { class: `turn ${writer} ${empty ? "empty" : ""}` },
        el("span", { class: "speaker", "aria-hidden": "true" }, name), row,
        empty ? el("span", { class: "badge" }, RUN.behaviour.turn) : null));
    }
    const text = numbers.text(episode, i);
    const nats = cost(numbers, view.colour, episode, i);
    const span = el("span", {
      class: `token k${Number.isNaN(nats) ? 0 : level(nats)} ${i === impossible ? "impossible" : ""}`,
      "data-i": i,
      tabindex: -1,
      "aria-describedby": "readout",
    }, visible(text));
    if (i < evaluation.prompt_length) span.classList.add("prompt");
    if (text.trim() === "") span.classList.add("break");
    spans.push(span);
    row.append(span);
  }
  spans[view.token ?? evaluation.prompt_length]?.setAttribute("tabindex", "0");

  const strip = budgetStrip(view, numbers);
  const costliest = [...spans.keys()]
    .map((i) => [cost(numbers, view.colour, episode, i), i])
    .filter(([nats]) => nats >= LEVELS[0])
    .sort((a, b) => b[0] - a[0])
    .slice(0, N_COSTLIEST);
  const show = (i) => {
    showReadout(spans[i], ...tokenReadout(numbers, episode, i));
    strip.point(i);
  };
  const focus = (i) => {
    turns.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    spans[i].setAttribute("tabindex", "0");
    spans[i].focus({ preventScroll: true });
    spans[i].scrollIntoView({ block: "nearest" });
  };
  const indexOf = (event) => {
    const span = event.target.closest?.(".token");
    return span ? Number(span.dataset.i) : null;
  };
  turns.addEventListener("pointerover", (event) => {
    const i = indexOf(event);
    if (i !== null) show(i);
  });
  turns.addEventListener("pointerleave", hideReadout);
  turns.addEventListener("click", (event) => {
    const i = indexOf(event);
    if (i !== null) focus(i);
  });
  turns.addEventListener("focusin", (event) => {
    const i = indexOf(event);
    if (i === null) return;
    show(i);
    view.onChoose(i);
  });
  turns.addEventListener("focusout", hideReadout);
  turns.addEventListener("keydown", (event) => {
    const i = indexOf(event);
    if (i === null) return;
    const next = step(event.key, i, spans, numbers, episode);
    if (next !== null) {
      event.preventDefault();
      focus(next);
    }
  });
  const jumps = el("div", { class: "jumps" }, el("span", {}, "Costliest"));
  for (const [nats, i] of costliest) {
    jumps.append(el("button", { type: "button", class: `token k${level(nats)}`,
      onclick: () => focus(i) }, `${visible(numbers.text(episode, i)).trim()} ${short(nats, 3)}`));
  }
  if (!costliest.length) jumps.append(el("span", { class: "faint" }, "nothing charged"));
  host.replaceChildren(
    episodeHead(view, impossible), strip.root, jumps, turns,
  );
  host.focusToken = focus;
  host.costliest = costliest.map(([, i]) => i);
}

/** Where a key leads from a token; null if nowhere. */
function step(key, i, spans, numbers, episode) {
  const last = spans.length - 1;
  const starts = spans.map((_, k) => k).filter((k) =>
    k === 0 || numbers.writer(episode, k) !== numbers.writer(episode, k - 1));
  switch (key) {
    case "ArrowRight": return Math.min(last, i + 1);
    case "ArrowLeft": return Math.max(0, i - 1);
    case "ArrowDown": return starts.find((k) => k > i) ?? last;
    case "ArrowUp": return starts.findLast((k) => k < i) ?? 0;
    case "Home": return 0;
    case "End": return last;
    default: return null;
  }
}

/** Name and figures of an episode. */
function episodeHead(view, impossible) {
  const { subject, evaluation, episode } = view;
  const of = (name) => evaluation.episodes[name][episode];
  const spent = isBase(subject)
    ? "spends nothing"
    : `${of("spent_nats").toFixed(3)}${subject.budget_nats === null ? ""
      : ` of ${short(subject.budget_nats)}`} nats spent`;
  const chips = [
    spent,
    `return ${of("returns").toFixed(2).replace("-", "−")}`,
    `${of("n_empty")} of ${of("n_turns")} turns ${RUN.behaviour.turn}`,
  ];
  const list = el("ul", { class: "chips" }, ...chips.map((text) => el("li", {}, text)));
  if (of("silent")) list.prepend(el("li", { class: "alarm" }, RUN.behaviour.episode));
  if (impossible !== null) {
    list.append(el("li", { class: "left-support" }, `impossible under τ from token ${impossible}`));
  }
  return el("div", { class: "pane-head" },
    colourByBudget(el("h3", {}, subjectText(subject)), isBase(subject) ? null : subject.budget_nats),
    list);
}

/** The budget left over the tokens of an episode, with a cursor: {root, point}. */
function budgetStrip(view, numbers) {
  const { subject, evaluation, episode } = view;
  const t = evaluation.n_tokens;
  const top = subject.budget_nats;
  if (isBase(subject) || !top) {
    return { root: el("div", { class: "strip none" }, "no budget to spend"), point: () => {} };
  }
  const [w, h] = [600, 46];
  const px = (i) => (w * i) / (t - 1);
  const py = (nats) => 2 + (h - 4) * (1 - Math.max(0, nats) / top);
  let d = "";
  for (let i = 0; i < t; i += 1) {
    d += `${i ? "L" : "M"}${px(i).toFixed(1)} ${py(numbers.number("budget_nats", episode, i)).toFixed(1)}`;
  }
  const cursor = svg("line", { class: "cursor", x1: 0, x2: 0, y1: 0, y2: h, visibility: "hidden" });
  const picture = svg("svg", { viewBox: `0 0 ${w} ${h}`, preserveAspectRatio: "none", role: "img",
    "aria-label": "budget left over the episode" },
  svg("path", { class: "area", d: `${d}L${w} ${h}L0 ${h}Z` }),
  svg("path", { class: "line", d, "vector-effect": "non-scaling-stroke" }), cursor);
  const root = colourByBudget(
    el("div", { class: "strip" }, el("span", {}, "budget left"), picture), top);
  return {
    root,
    point: (i) => {
      cursor.setAttribute("visibility", "visible");
      cursor.setAttribute("x1", px(i));
      cursor.setAttribute("x2", px(i));
    },
  };
}

/** The legend of the colours, and the choice of what they mean; returns what updates it. */
function buildScale(host, choose, chosen) {
  const steps = el("ol", { class: "steps", "aria-hidden": "true" });
  LEVELS.forEach((least, i) => {
    steps.append(el("li", { class: `k${i + 1}` }, `${least}`));
  });
  const inputs = Object.keys(COLOURS).map((name) => el("input",
    { type: "radio", name: "colour", value: name, onchange: () => choose(name) }));
  const chooser = el("span", { class: "chooser" }, ...inputs.map((input) =>
    el("label", { class: "chip" }, input, el("span", {}, COLOURS[input.value]))));
  host.append(
    el("span", { class: "legend-title" }, "Colour"), chooser,
    el("span", { class: "legend-title" }, "nats from"), steps,
    el("span", { class: "impossible-key" }, el("span", { class: "token impossible" }, "word"),
      " first impossible under the demonstrator τ"),
  );
  return () => inputs.forEach((input) => { input.checked = input.value === chosen(); });
}
