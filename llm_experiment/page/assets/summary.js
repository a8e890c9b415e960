"use strict";
// What every page has: its main figures, its tables, what was run and how to read it.

const $ = (id) => document.getElementById(id);

/** A value, and what stands in brackets behind it (an interval) on a line of its own. */
function onTwoLines(text) {
  const [value, ...brackets] = text.split(/ (?=\()/);
  return brackets.length ? [value, el("br"), el("small", {}, brackets.join(" "))] : [text];
}

function tableElement(table) {
  const body = table.rows.map((row) => el("tr", {},
    ...row.map((text, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, ...onTwoLines(text)))));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": table.title },
    el("table", {},
      el("thead", {}, el("tr", {}, ...table.columns.map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, ...body)));
}

/** A sentence with its `names` set as code. */
function withCode(text) {
  return text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));
}

/** Draw all of it, once; the elements are those of page.html. */
function drawSummary() {
  $("label").textContent = RUN.label;
  for (const fact of RUN.facts) {
    $("facts").append(el("li", {}, el("strong", {}, fact.value), el("span", {}, fact.meaning),
      el("small", {}, fact.note)));
  }
  RUN.tables.forEach((table, i) => {
    $("tables").append(el("details", { open: i === 0 }, el("summary", {}, table.title),
      tableElement(table), el("ul", { class: "notes" },
        ...table.notes.map((note) => el("li", {}, ...withCode(note))))));
  });
  for (const [name, text] of RUN.about) $("about").append(el("dt", {}, name), el("dd", {}, text));
  $("settings").textContent = RUN.settings;
  for (const text of RUN.caveats) $("caveats").append(el("li", {}, text));
  $("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const root = document.documentElement.dataset;
    root.theme = (root.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  });
}
