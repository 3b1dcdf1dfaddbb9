// The page's one script: filters that all sections share, heat maps, figures, tables by the page, answers, reloading.
// It only reads the JSON blocks of the page. Text goes in as text, never as HTML.

const FACETS = ["model", "share", "order", "seed"];
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const block = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
const number = new Intl.NumberFormat("en-US");

// ---- Filters: for each facet the values chosen, none meaning all; kept in the address after "#".

const form = $("#filters");
const titles = {}; // facet -> value -> what people read
let chosen = {}; // facet -> set of values
const others = new URLSearchParams(); // what else the address holds: the answers' own controls

function inputs(facet) {
  return $$(`[name="${facet}"]`, form);
}

function readTitles() {
  for (const facet of FACETS) {
    const named = inputs(facet).flatMap((each) =>
      each.tagName === "SELECT" ? $$("option", each).slice(1).map((o) => [o.value, o.text]) : [[each.value, each.nextSibling.textContent]]);
    titles[facet] = Object.fromEntries(named);
  }
}

function readForm() {
  for (const facet of FACETS) {
    const values = inputs(facet).filter((each) => (each.tagName === "SELECT" ? each.value : each.checked)).map((each) => each.value);
    chosen[facet] = new Set(values);
  }
}

function writeForm(wanted) {
  for (const facet of FACETS) {
    for (const each of inputs(facet)) {
      if (each.tagName === "SELECT") each.value = [...wanted[facet]][0] ?? "";
      else each.checked = wanted[facet].has(each.value);
    }
  }
}

function readAddress() {
  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  writeForm(Object.fromEntries(FACETS.map((facet) => [facet, new Set(given.get(facet)?.split(",") ?? [])])));
  for (const key of [...others.keys()]) others.delete(key);
  for (const [key, value] of given) if (!FACETS.includes(key)) others.set(key, value);
  readForm(); // values that the page does not have are gone by now
}

function writeAddress() {
  const state = new URLSearchParams();
  for (const facet of FACETS) if (chosen[facet].size) state.set(facet, [...chosen[facet]].join(","));
  for (const [key, value] of others) state.set(key, value);
  const text = state.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/");
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

/** Whether the filters let through what has these values; a facet without a value is not asked. */
function admits(values) {
  return FACETS.every((facet) => values[facet] == null || !chosen[facet].size || String(values[facet]).split("|").some((v) => chosen[facet].has(v)));
}

/** The same of a row of a figure, which has what people read. */
function admitsRow(row) {
  const given = { model: row.model ?? row.trainable, share: row.ratio ?? row.mixture ?? row.share, order: row.order, seed: row.seed };
  return FACETS.every((facet) => {
    if (given[facet] == null || !chosen[facet].size) return true;
    return [...chosen[facet]].some((value) => value === String(given[facet]) || titles[facet][value] === String(given[facet]));
  });
}

function hideExcluded() {
  const marked = $$(FACETS.map((facet) => `main [data-${facet}]`).join(","));
  for (const each of marked) each.hidden = !admits(each.dataset);
  for (const body of $$("section > .body")) body.nextElementSibling.hidden = !body.hidden;
  for (const note of $$(".all-seeds")) note.hidden = !chosen.seed.size;
}

// ---- Trials: decoded once; means over seeds as in results/grid.py, a seed with several trials counts with their mean.

function decode(data) {
  if (!data) return [];
  const columns = Object.entries(data.columns).map(([name, column]) => [name, column.codes ? column.codes.map((code) => column.values[code]) : column]);
  return data.in_grid.map((inGrid, i) => ({
    ...Object.fromEntries(columns.map(([name, values]) => [name, values[i]])),
    inGrid,
    em: Object.fromEntries(data.domains.map(({ name }) => [name, data.em[name][i]])),
  }));
}

const trialsData = block("trials-data");
const trials = decode(trialsData);
const byCell = new Map();
for (const trial of trials.filter((each) => each.inGrid)) {
  const cell = `${trial.model}|${trial.order}|${trial.share}`;
  byCell.set(cell, [...(byCell.get(cell) ?? []), trial]);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function deviation(values) {
  const middle = mean(values);
  return values.length > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1)) : null;
}

/** Seed -> EM in percent, of the seeds that the filters let through. */
function seedScores(side, share, domain) {
  const scores = new Map();
  for (const trial of byCell.get(`${side}|${share}`) ?? []) {
    if (trial.em[domain] == null || !admits({ seed: trial.seed })) continue;
    scores.set(trial.seed, [...(scores.get(trial.seed) ?? []), trial.em[domain]]);
  }
  return new Map([...scores].map(([seed, values]) => [seed, mean(values)]));
}

function cellValues(table, share, domain) {
  const side = seedScores(table.side, share, domain);
  if (!table.base) return [...side.values()];
  const base = seedScores(table.base, share, domain);
  return [...side].filter(([seed]) => base.has(seed)).map(([seed, value]) => value - base.get(seed));
}

// ---- Heat maps: as they came while no seed is chosen, else reckoned anew.

function fillHeatmaps() {
  for (const table of $$("table.heatmap")) {
    for (const cell of $$("td[data-domain]", table)) {
      cell.original ??= { nodes: [...cell.childNodes], className: cell.className, heat: cell.style.getPropertyValue("--heat") };
      if (chosen.seed.size) fillCell(cell, table.dataset, cellValues(table.dataset, cell.dataset.share, cell.dataset.domain));
      else showCell(cell, cell.original);
    }
  }
}

function showCell(cell, { nodes, className, heat }) {
  cell.replaceChildren(...nodes);
  cell.className = className;
  cell.style.setProperty("--heat", heat);
}

function fillCell(cell, table, values) {
  if (!values.length) return showCell(cell, { nodes: ["–"], className: "heat noise", heat: "0" });
  const value = mean(values), sd = deviation(values), high = +table.high, low = +(table.low ?? 0);
  const nodes = [table.base ? signed(value) : value.toFixed(1)];
  if (sd !== null) nodes.push(element("small", `± ${sd.toFixed(1)}`));
  const heat = table.base ? Math.abs(value) / high : high > low ? (value - low) / (high - low) : 0;
  const kind = !table.base ? "" : Math.abs(value) <= +table.floor ? "noise" : value > 0 ? "up" : "down";
  showCell(cell, { nodes, className: `heat ${kind}`.trim(), heat: String(Math.min(1, Math.max(0, heat))) });
}

function signed(value) {
  const text = Math.abs(value).toFixed(1);
  return (value < 0 && text !== "0.0" ? "−" : "+") + text;
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// ---- Figures: Vega draws them in the reader's colours; their rows are those that the filters let through.

const dark = matchMedia("(prefers-color-scheme: dark)");
const MOST_MARKS = 3000; // above it a canvas, which is faster and coarser than SVG
const ERRORS = 1; // as Vega counts: without warnings, which come of figures that the filters empty
const ON_DARK = { "#444444": "#c5c9cf", "#777777": "#9aa0a8", "#8C2D04": "#ff9d6b", "#0072B2": "#3d84e0", "#999999": "#7d838b" };
const figures = new Map(); // name -> its pristine data sets and Vega's view

function config() {
  const [ink, soft, rule] = dark.matches ? ["#e6e7e9", "#a9aeb6", "#353a41"] : ["#1c1e21", "#5c6169", "#e3e5e8"];
  const text = { labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
  return { background: "transparent", font: "Helvetica, Arial, sans-serif", view: { stroke: null },
    axis: { ...text, gridColor: rule, domainColor: soft, tickColor: soft }, legend: { ...text, symbolBaseFillColor: soft, symbolBaseStrokeColor: soft }, header: text,
    title: { color: ink, subtitleColor: soft, offset: 14 } };
}

/** The colours of a figure on the reader's background: neither end of a colour scale may vanish in it. */
function inColours(text) {
  const scales = text.replaceAll('"scheme":"viridis"', `"scheme":{"name":"viridis","extent":${dark.matches ? "[0.3,1]" : "[0,0.88]"}}`);
  return dark.matches ? scales.replace(/#[0-9A-Fa-f]{6}(?=")/g, (colour) => ON_DARK[colour] ?? colour) : scales;
}

async function drawFigure(name) {
  const source = document.getElementById(`${name}-spec`).textContent, place = document.getElementById(name);
  const spec = JSON.parse(inColours(source)), data = JSON.parse(source).datasets ?? {};
  const rows = Object.values(data).reduce((sum, each) => sum + each.length, 0);
  for (const [key, values] of Object.entries(data)) spec.datasets[key] = figureRows(values);
  figures.get(name)?.view.finalize();
  const actions = { export: true, source: false, compiled: false, editor: false };
  const { view } = await vegaEmbed(place, spec, { actions, renderer: rows > MOST_MARKS ? "canvas" : "svg", config: config(), logLevel: ERRORS });
  $("summary", place)?.setAttribute("aria-label", "Save this figure");
  figures.set(name, { data, view });
  showFigure(name);
}

async function filterFigure(name) {
  const { data, view } = figures.get(name);
  for (const [key, values] of Object.entries(data)) view.data(key, figureRows(values));
  showFigure(name);
  await view.runAsync();
}

/** Rows for Vega, which marks the objects that it is given: copies. Means over seeds are reckoned anew for chosen seeds. */
function figureRows(values) {
  const rows = values.filter(admitsRow).map((row) => ({ ...row }));
  if (!chosen.seed.size) return rows;
  return rows.map((row) => ("seeds" in row && "em" in row && "domain" in row ? { ...row, ...overSeeds(row) } : row));
}

function overSeeds(row) {
  const value = (facet, title) => Object.keys(titles[facet]).find((each) => titles[facet][each] === title);
  const domain = trialsData.domains.find((each) => each.title === row.domain)?.name;
  const values = [...seedScores(`${value("model", row.model)}|${row.order}`, value("share", row.ratio), domain).values()];
  if (!values.length) return { em: null, low: null, high: null, seeds: 0 };
  const middle = mean(values), sd = deviation(values);
  return { em: middle, low: sd === null ? null : middle - sd, high: sd === null ? null : middle + sd, seeds: values.length };
}

function showFigure(name) {
  const { data } = figures.get(name), all = Object.values(data).flat();
  const figure = document.getElementById(name).closest("figure");
  let note = $(".none", figure);
  const isEmpty = all.length > 0 && !all.some(admitsRow);
  if (isEmpty && !note) figure.append((note = element("p", "The filters leave nothing of this figure.", { class: "none soft" })));
  if (note) note.hidden = !isEmpty;
  $(".chart", figure).hidden = isEmpty;
}

async function drawFigures() {
  for (const place of $$(".chart > div")) {
    await drawFigure(place.id).catch(console.error);
    await new Promise((resolve) => setTimeout(resolve)); // let the reader scroll and type in between
  }
}

// ---- Tables by the page, with columns that sort.

class PagedTable {
  constructor(id, columns, size) {
    this.table = document.getElementById(id);
    this.columns = columns; // {title, of(row), cell(row) -> node or text, numeric}
    this.size = size;
    this.page = 0;
    this.rows = [];
    this.pager = $(`.pager[data-for="${id}"]`);
    this.previous = element("button", "Previous", { type: "button" });
    this.next = element("button", "Next", { type: "button" });
    this.place = element("span", "", { role: "status" });
    this.pager.append(this.previous, this.place, this.next);
    this.previous.onclick = () => this.turn(-1);
    this.next.onclick = () => this.turn(1);
    this.head();
  }

  head() {
    $("thead tr", this.table).replaceChildren(...this.columns.map((column) => {
      const th = element("th", column.of ? "" : column.title, { scope: "col", ...(column.numeric && { class: "number" }) });
      if (column.of) {
        const button = element("button", column.title, { type: "button" });
        button.onclick = () => this.sortBy(column, th);
        th.append(button);
      }
      return th;
    }));
  }

  sortBy(column, th) {
    const ascending = th.getAttribute("aria-sort") !== "ascending";
    for (const other of $$("th", this.table)) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    this.order = (a, b) => compare(column.of(a), column.of(b)) * (ascending ? 1 : -1);
    this.show(this.rows);
  }

  show(rows) {
    this.rows = this.order ? rows.toSorted(this.order) : rows;
    this.page = 0;
    this.turn(0);
  }

  turn(by) {
    const pages = Math.max(1, Math.ceil(this.rows.length / this.size));
    this.page = Math.min(pages - 1, Math.max(0, this.page + by));
    const first = this.page * this.size, shown = this.rows.slice(first, first + this.size);
    $("tbody", this.table).replaceChildren(...shown.map((row) => this.line(row)));
    this.place.textContent = shown.length ? `${number.format(first + 1)}–${number.format(first + shown.length)} of ${number.format(this.rows.length)}` : "none";
    this.previous.disabled = this.page === 0;
    this.next.disabled = this.page === pages - 1;
  }

  line(row) {
    const tr = document.createElement("tr");
    for (const column of this.columns) {
      const td = element("td", "", column.numeric ? { class: "number" } : {});
      td.append(column.cell(row));
      tr.append(td);
    }
    return tr;
  }
}

/** Missing values last, whichever the order says of the others. */
function compare(a, b) {
  if (a == null || b == null) return (a == null) - (b == null);
  return typeof a === "number" ? a - b : String(a).localeCompare(String(b));
}

const shownValue = (facet, value) => titles[facet][value] ?? (value == null ? "–" : String(value));

function trialsTable() {
  const text = (title, name) => ({ title, of: (row) => row[name], cell: (row) => row[name] ?? "" });
  const facet = (title, name) => ({ title, of: (row) => row[name], cell: (row) => shownValue(name, row[name]) });
  const fixed = (title, of) => ({ title, of, numeric: true, cell: (row) => of(row)?.toFixed(1) ?? "–" });
  return new PagedTable("trials-table", [
    { title: "trial", of: (row) => row.key, cell: (row) => element("code", row.key) },
    facet("model", "model"), facet("mixture", "share"), facet("order", "order"), facet("seed", "seed"), text("status", "status"),
    ...trialsData.domains.map(({ name, title }) => fixed(`EM ${title}`, (row) => row.em[name])),
    fixed("seconds", (row) => row.seconds),
    { title: "attempts", of: (row) => row.attempts, numeric: true, cell: (row) => String(row.attempts) },
    text("why", "why"), text("sweep", "sweep"),
  ], 25);
}

// ---- Answers: those of two models beside each other, trained on the same mixture, order and seed.

const OUTCOMES = [["", "all"], ["first", "only the first right"], ["second", "only the second right"], ["both", "both right"], ["neither", "neither right"], ["differ", "answers differ"]];

class Answers {
  constructor(data) {
    this.data = data;
    this.form = $("#answers-form");
    this.count = $("#answers-count");
    this.fields = Object.fromEntries(["q", "domain", "outcome", "at", "first", "second"].map((name) => [name, this.form.elements[name]]));
    offer(this.fields.domain, [["", "all"], ...data.domains.map(({ name, title }) => [name, title])]);
    offer(this.fields.outcome, OUTCOMES);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => this.changed(event.target));
  }

  setting(trial) {
    return `${trial.share}/${trial.order}/${trial.seed}`;
  }

  /** What can be chosen follows the page's filters; what was chosen stays where it still can be. */
  refresh() {
    const { data, fields } = this, allowed = data.trials.filter(admits);
    const settings = new Map(allowed.map((trial) => [this.setting(trial), trial]));
    const ranked = [...settings].toSorted(([, a], [, b]) => a.share - b.share || compare(a.order, b.order) || a.seed - b.seed);
    offer(fields.at, ranked.map(([value, t]) => [value, `${shownValue("share", t.share)}, ${t.order}, seed ${t.seed}`]));
    const usual = [...settings.values()].toSorted((a, b) => (a.order !== "shuffled") - (b.order !== "shuffled")
      || Math.abs(a.share - data.share) - Math.abs(b.share - data.share) || a.seed - b.seed)[0];
    this.restore("at", usual && this.setting(usual));
    const models = [...new Set(allowed.filter((trial) => this.setting(trial) === fields.at.value).map((trial) => trial.model))];
    offer(fields.first, models.map((name) => [name, shownValue("model", name)]));
    this.restore("first", models.includes(data.baseline) ? data.baseline : models[0]);
    offer(fields.second, [["none", "none"], ...models.map((name) => [name, shownValue("model", name)])]);
    const other = models.filter((name) => name !== fields.first.value);
    this.restore("second", other.includes(data.contender) ? data.contender : (other[0] ?? "none"));
    for (const name of ["q", "domain", "outcome"]) this.restore(name, "");
    this.show();
  }

  restore(name, usual) {
    const field = this.fields[name], wanted = others.get(name) ?? usual ?? "";
    field.value = wanted;
    if (field.tagName === "SELECT" && field.value !== wanted) field.value = usual ?? "";
  }

  changed({ name, value }) {
    if (value) others.set(name, value);
    else others.delete(name);
    this.refresh();
    writeAddress();
  }

  /** One row for each example: what the one or two models answered, and whether that is right. */
  show() {
    const { data, fields } = this;
    const sides = [fields.first.value, fields.second.value].map((model) => data.trials.find((t) => t.model === model && this.setting(t) === fields.at.value)).filter(Boolean);
    const rows = sides.length ? data.examples.map((example, i) => ({ ...example, answers: sides.map((side) => answer(data, side, i)) })) : [];
    const fitting = rows.filter((row) => this.fits(row));
    const shown = fitting.toSorted((a, b) => this.rank(a) - this.rank(b));
    this.table ??= new PagedTable("answers-table", [], 12);
    const domains = Object.fromEntries(data.domains.map(({ name, title }) => [name, title]));
    this.table.columns = [
      { title: "tested on", cell: (row) => domains[row.domain] ?? row.domain },
      { title: "question", cell: (row) => row.question },
      { title: "true answer", cell: (row) => row.gold },
      ...sides.map((side, i) => ({ title: shownValue("model", side.model), cell: (row) => verdict(row.answers[i]) })),
    ];
    this.table.head();
    this.table.show(shown);
    const right = sides.map((side, i) => `${shownValue("model", side.model)} is right on ${number.format(fitting.filter((row) => row.answers[i].right).length)}`);
    this.count.textContent = sides.length ? `${number.format(fitting.length)} of ${number.format(rows.length)} examples; ${right.join(", ")}.` : "No model with answers under these filters.";
  }

  fits(row) {
    const { q, domain, outcome } = this.fields, words = q.value.trim().toLowerCase();
    if (domain.value && row.domain !== domain.value) return false;
    if (words && ![row.question, row.gold, ...row.answers.map((each) => each.text)].some((text) => text.toLowerCase().includes(words))) return false;
    const [first, second = first] = row.answers;
    const outcomes = { first: first.right && !second.right, second: second.right && !first.right, both: first.right && second.right,
      neither: !first.right && !second.right, differ: first.text !== second.text };
    return !outcome.value || outcomes[outcome.value];
  }

  /** What only one model has right comes first, then other differing answers. */
  rank({ answers: [first, second = first] }) {
    return first.right !== second.right ? 0 : first.text !== second.text ? 1 : 2;
  }
}

function answer(data, side, i) {
  const place = side.texts[i];
  return { text: place < 0 ? "" : data.texts[place], right: side.right[i] === "1" };
}

function verdict({ text, right }) {
  return element("span", text || "(no answer)", { class: right ? "right" : "wrong" });
}

function offer(select, options) {
  const current = select.value;
  select.replaceChildren(...options.map(([value, text]) => element("option", text, { value })));
  select.value = options.some(([value]) => value === current) ? current : (options[0]?.[0] ?? "");
}

// ---- A page that is rewritten while a sweep runs says how old it is and loads itself anew, not while someone types.

function showAge() {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(document.documentElement.dataset.written)) / 1000));
  $("#age").textContent = `· written ${seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`} ago, loads itself anew`;
}

function keepFresh(seconds) {
  showAge();
  setInterval(showAge, 1000);
  const scrolled = sessionStorage.getItem("scrolled");
  if (scrolled) scrollTo({ top: +scrolled, behavior: "instant" });
  const reload = () => {
    if (document.activeElement?.matches("input[type=search], select")) return setTimeout(reload, 1000);
    sessionStorage.setItem("scrolled", String(scrollY));
    location.reload();
  };
  setTimeout(reload, seconds * 1000);
}

// ---- Putting it together.

let table, answers;

async function update() {
  hideExcluded();
  fillHeatmaps();
  const fitting = trials.filter(admits);
  $("#shown").textContent = `${number.format(fitting.length)} of ${number.format(trials.length)} trials`;
  table?.show(fitting);
  answers?.refresh();
  await Promise.all([...figures.keys()].map(filterFigure));
}

function goTo(event) {
  const link = event.target.closest('a[href^="#"]'), target = link && document.getElementById(link.hash.slice(1));
  if (!target) return;
  event.preventDefault(); // the address keeps the filters
  target.scrollIntoView();
  target.tabIndex = -1;
  target.focus({ preventScroll: true });
}

readTitles();
if (matchMedia("(max-width: 600px)").matches) $("details", form).open = false;
if (trialsData) table = trialsTable();
if (block("answers-data")) answers = new Answers(block("answers-data"));
readAddress();
form.addEventListener("change", () => { readForm(); writeAddress(); update(); });
form.addEventListener("reset", () => setTimeout(() => { readForm(); writeAddress(); update(); }));
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => { if (location.hash.includes("=") || !location.hash) { readAddress(); update(); } });
document.addEventListener("click", goTo);
dark.addEventListener("change", drawFigures);
await update();
await drawFigures();
const { reload } = document.documentElement.dataset;
if (reload) keepFresh(+reload);
document.documentElement.dataset.ready = String(Math.round(performance.now()));
