// The index: a leaderboard to sort, search and fold, and a comparison of chosen runs.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector(".runs");
  if (!table) return;
  const { configurations, ...known } = JSON.parse(document.getElementById("data").textContent);
  const rows = [...table.querySelectorAll("tbody tr")]; // one for each configuration, in that order
  tableSorts(table);
  tableFolds(rows, configurations);
  rowsChoose(rows, configurations, known);
  drawCosts(document.getElementById("cost"), configurations);
  drawLabels(document.getElementById("labels"), configurations);
});

const SVG = "http://www.w3.org/2000/svg";
const draw = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
const SHOWN = 0.15; // figures of time and arithmetic show accuracies down to 15 points below the best
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const percent = (share, digits = 1) => `${(100 * share + 1e-9).toFixed(digits)}%`; // halves round up
const point = (one, key) => ({ x: one[key], y: one.top1[0], low: one.top1[1], high: one.top1[2], name: `${one.name}: ${one.accuracy}, ${one.cost[key]}` });
const look = (place) => `c${place % 6} d${Math.floor(place / 6) % 4}`;

// A header sorts by its column: first by larger numbers or earlier letters, then the reverse.
// Variants stay below their row.
function tableSorts(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const order = before ? { ascending: "descending", descending: "ascending" }[before] : numeric ? "descending" : "ascending";
      table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value ?? (numeric ? null : row.cells[column].textContent);
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null); // what is missing comes last
        return sign * (numeric ? x - y : byText(x, y));
      };
      const bodies = [...table.tBodies].sort((a, b) => compare(a.rows[0], b.rows[0]));
      bodies.forEach((body) => body.append(...[...body.rows].slice(1).sort(compare)));
      table.append(...bodies);
    });
  });
}

// The order of two texts, whose numbers may have decimals and exponents.
function byText(x, y) {
  const [a, b] = [x, y].map((text) => text.split(/(\d+(?:\.\d+)?(?:e[+-]?\d+)?)/)); // a number is at each odd place
  const place = a.findIndex((part, i) => part !== b[i]);
  if (place < 0 || b[place] === undefined) return a.length - b.length;
  return (place % 2 && a[place] - b[place]) || a[place].localeCompare(b[place], "en");
}

// A row shows if it has all words of the search. A variant also shows if its fold is open.
function tableFolds(rows, configurations) {
  const filters = document.querySelector(".filters");
  const [search, dataset] = filters.querySelectorAll("input, select");
  const plain = (text) => text.toLowerCase().replace(/[-_]/g, ""); // so that cifar-10 finds cifar10
  const texts = configurations.map(({ name, dataset: data, kind, settings, runs }) =>
    plain([name, data, kind, ...runs.map((run) => run.name), ...Object.values(settings)].join(" ")));
  const [open, folds] = [new Set(), []];
  const apply = () => {
    const words = plain(search.value).split(/\s+/);
    let found = 0, all = 0;
    rows.forEach((row, i) => {
      const { runs, dataset: name } = configurations[i];
      const fits = words.every((word) => texts[i].includes(word)) && (!dataset.value || dataset.value === name);
      row.hidden = !fits || (row.className === "variant" && !search.value.trim() && !open.has(row.parentNode));
      all += runs.length;
      found += fits ? runs.length : 0;
    });
    folds.forEach((fold) => { fold.hidden = Boolean(search.value.trim()); });
    filters.querySelector("[role=status]").textContent = `${found} of ${all} run${all === 1 ? "" : "s"}`;
  };
  rows.filter((row) => row.nextElementSibling && row.className !== "variant").forEach((row) => {
    const body = row.parentNode;
    const best = body.dataset.best ? `, up to ${body.dataset.best}` : "";
    const words = `${body.rows.length - 1} variant${body.rows.length > 2 ? "s" : ""}${best}`;
    const button = make("button", { type: "button", class: "fold", "aria-expanded": false }, `${words} ▸`);
    button.addEventListener("click", () => {
      if (!open.delete(body)) open.add(body);
      button.setAttribute("aria-expanded", open.has(body));
      button.textContent = `${words} ${open.has(body) ? "▾" : "▸"}`;
      apply();
    });
    row.cells[0].append(button);
    folds.push(button);
  });
  search.addEventListener("input", apply);
  dataset.addEventListener("change", apply);
  apply(); // a browser may keep the choices of the last visit
  filters.hidden = false;
}

// Ticked rows are drawn and compared below the table. At first these are the best two with a paired test.
function rowsChoose(rows, configurations, known) {
  const section = document.getElementById("chosen");
  const place = section.querySelector("div");
  const boxes = rows.map((row, i) => {
    const box = make("input", { type: "checkbox", "aria-label": `Choose ${configurations[i].name}`, autocomplete: "off" });
    row.cells[0].prepend(box);
    return box;
  });
  const count = make("span", { "aria-live": "polite" });
  const clear = make("button", { type: "button" }, "Clear");
  const tally = make("span", {}, count, make("a", { href: "#chosen" }, "See their curves"), " ", clear);
  document.querySelector(".filters").append(tally);
  const focus = (i) => (rows[i].hidden ? document.querySelector(".filters input") : boxes[i]).focus(); // a hidden box takes none
  let chosen = []; // in the order of choice: the first is what others are tested against
  const show = () => {
    boxes.forEach((box, i) => { box.checked = chosen.includes(i); });
    tally.hidden = !chosen.length;
    count.textContent = `${chosen.length} chosen. `;
    const some = chosen.map((i) => configurations[i]);
    const names = legend(some.map((one) => one.name));
    [...names.children].forEach((item, i) => {
      const button = make("button", { type: "button", "aria-label": `Leave out ${some[i].name}` }, "×");
      button.addEventListener("click", () => { focus(chosen[i]); choose(chosen[i], false); });
      item.append(button);
    });
    place.replaceChildren(...(some.length ? [names, curves(some)] : []), ...(some.length > 1 ? comparison(some, known) : []));
  };
  const choose = (i, ticked) => {
    chosen = chosen.filter((other) => other !== i).concat(ticked ? [i] : []);
    show();
  };
  boxes.forEach((box, i) => box.addEventListener("change", () => choose(i, box.checked)));
  clear.addEventListener("click", () => { focus(chosen[0]); chosen = []; show(); });
  const tested = (i, j) => j > i && configurations[i].runs.some((run) => configurations[j].runs.some((other) => paired(run, other, known.tests)));
  const places = [...rows.keys()];
  const first = places.find((i) => places.some((j) => tested(i, j))) ?? 0;
  const second = places.find((j) => tested(first, j)) ?? 1;
  chosen = [first, second].filter((i) => i < rows.length);
  section.hidden = false;
  show();
}

function legend(names) {
  return make("ul", { class: "legend" }, ...names.map((name, i) =>
    make("li", {}, draw("svg", { viewBox: "0 0 30 10", class: look(i), "aria-hidden": true },
      draw("path", { d: "M0 5H30" }), draw("circle", { cx: 15, cy: 5, r: 4 })), name)));
}

function curves(some) {
  const panels = ["training", "validation"].map((kind) => {
    const series = some.map((one, i) => ({
      look: look(i),
      lines: one.runs.map((run) => run[kind].map((y, epoch) => ({ x: epoch + 1, y, name: y === null ? "" : `${run.name}, epoch ${epoch + 1}: ${percent(y, 2)}` }))),
    }));
    const best = some.map((one) => [one.name, mean(one.runs.map((run) => Math.max(...run[kind])))]);
    const told = best.filter(([, value]) => value > 0).map(([name, value]) => `${name} ${percent(value)}`);
    const longest = Math.max(...some.flatMap((one) => one.runs.map((run) => run[kind].length)));
    const epochs = steps(0, longest).filter((tick) => Number.isInteger(tick) && tick <= longest);
    const of = some.some((one) => one.runs.length > 1) ? "Best epoch, mean over seeds" : "Best epoch";
    return longest && chart(`${kind} accuracy`, `By epoch. ${of}: ${told.join(", ")}.`, series,
      { name: "epoch", low: 0, high: longest, ticks: epochs.map((tick) => [tick, tick]) });
  });
  return make("div", { class: "charts" }, ...panels.filter(Boolean));
}

const points = (share) => `${share < 0 ? "-" : "+"}${(Math.abs(100 * share) + 1e-9).toFixed(2)}`; // halves round away from 0

// The difference of two mean accuracies, in words. The means have each pair once.
function ofMeans(one, other, means) {
  const [later, earlier] = one.place > other.place ? [one, other] : [other, one];
  const found = means[later.place]?.[earlier.place];
  if (!found) return "";
  const [pairs, gain, low, high] = found;
  const [by, from, to] = one === later ? [gain, low, high] : [-gain, -high, -low];
  return `${one.name} against ${other.name}, ${pairs} pairs of runs with the same seed: top-1 ${points(by)} points on average (95% interval ${points(from)} to ${points(to)}, Student's)`;
}

// McNemar's test of a run against another one, in words. The tests have each pair once.
function paired(run, other, tests) {
  const [later, earlier] = run.place > other.place ? [run, other] : [other, run];
  const test = tests[later.place]?.[earlier.place];
  if (!test) return "";
  const [right, alone, against, wrong, low, high, p] = test;
  const [won, lost, from, to] = run === later ? [alone, against, low, high] : [against, alone, -high, -low];
  const images = right + won + lost + wrong;
  const count = (number) => number.toLocaleString("en");
  return `${run.name} against ${other.name} on ${count(images)} test images: top-1 ${points((won - lost) / images)} points (95% interval ${points(from)} to ${points(to)}), McNemar's exact p ${p}; both right ${count(right)}, only ${run.name} ${count(won)}, only ${other.name} ${count(lost)}, both wrong ${count(wrong)}`;
}

// The differences of configurations, their scores, and a paired test of each against the first.
function comparison(some, { tests, means, computed, of_seeds, of_tests }) {
  const seeds = (one) => one.runs.map((run) => run.seed).sort((a, b) => a - b).join(", ");
  const settings = some.map((one) => ({ ...one.settings, seed: seeds(one) }));
  const names = [...new Set(settings.flatMap(Object.keys))];
  const differing = names.filter((name) => settings.some((one) => one[name] !== settings[0][name]));
  const lines = [["top-1", ...some.map((one) => one.accuracy)], ...differing.map((name) => [name, ...settings.map((one) => one[name] ?? "–")])];
  const table = make("table", { class: "compared" },
    make("thead", {}, make("tr", {}, make("td"), ...some.map((one) => make("th", { scope: "col" }, one.name)))),
    make("tbody", {}, ...lines.map(([name, ...values]) =>
      make("tr", {}, make("th", { scope: "row" }, name), ...values.map((value) => make("td", {}, value))))));
  const unsure = computed.filter((name) =>
    !differing.includes(name) && /unknown|changes/.test(some[0].settings[name]));
  const apart = differing.length > 1
    ? `They differ in ${differing.length} things, so no single one explains the result.`
    : `Of their parameters, backend, precision, processor and commit, they differ in nothing but ${differing[0] ?? "their names"}${unsure.length ? `, as far as their records tell: ${unsure.join(", ")} not known` : ""}.`;
  const told = some.slice(1).flatMap((one) => [ofMeans(one, some[0], means), ...one.runs.flatMap((run) =>
    some[0].runs.map((other) => paired(run, other, tests)))]).filter(Boolean);
  const note = told.length
    ? [told.some((test) => test.includes("McNemar")) ? of_seeds : "", of_tests].join(" ").trim()
    : `No test against ${some[0].name}: it needs predicted classes of both for the same seed and test images, or the same test images and at least two seeds that both have, with differences that are not all the same.`;
  return [
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Comparison" }, table), make("p", {}, apart),
    make("ul", {}, ...told.map((test) => make("li", {}, test))), make("p", { class: "note" }, note),
  ];
}

function drawCosts(section, configurations) {
  const costs = [
    ["seconds", "training time", Object.entries({ s: 1, min: 60, h: 3600 }).flatMap(([unit, size]) => [1, 2, 5, 10, 20].map((k) => [k * size, `${k} ${unit}`]))],
    ["flops", "FLOPs to classify an image", [..."kMGT"].flatMap((unit, i) => [1, 2, 5, 10, 20, 50, 100, 200, 500].map((k) => [k * 1000 ** (i + 1), `${k} ${unit}`]))],
  ];
  const names = [...new Set(configurations.map((one) => one.dataset))];
  names.forEach((dataset) => {
    const here = configurations.filter((one) => one.dataset === dataset);
    const floor = Math.max(...here.map((one) => one.top1[0])) - SHOWN;
    const drawn = here.filter((one) => one.top1[0] >= floor && costs.some(([key]) => one[key] > 0));
    const kinds = [...new Set(drawn.map((one) => one.kind))];
    const panels = costs.map(([key, name, ticks]) => {
      const known = here.filter((one) => one[key] > 0);
      const shown = fromLeast(drawn.filter((one) => one[key] > 0), key);
      if (shown.length < 2) return null;
      const frontier = unbeaten(shown);
      const series = kinds.map((kind, i) => ({ look: look(i), points: shown.filter((one) => one.kind === kind).map((one) => point(one, key)) }));
      const low = shown[0][key] / 2, high = shown.at(-1)[key] * 2;
      const left = known.length > shown.length ? ` Not drawn: ${known.length - shown.length} below ${percent(floor)}.` : "";
      const told = `The best for their cost, from the cheapest: ${frontier.map((one) => `${one.name} ${percent(one.top1[0])}`).join(", ")}.${left}`;
      return chart(`test accuracy by ${name}`, told, [{ look: "frontier", lines: [frontier.map((one) => ({ x: one[key], y: one.top1[0] }))] }, ...series],
        { name, log: true, low, high, ticks: ticks.filter(([tick]) => low <= tick && tick <= high) });
    }).filter(Boolean);
    if (panels.length) section.append(make("h3", {}, dataset), legend(kinds), make("div", { class: "charts" }, ...panels));
  });
  section.append(make("p", { class: "note" }, "Bars are 95% intervals. For one run, a bar covers the limited number of test images; for several seeds, it is that of their mean. The two kinds can't be compared. Times are of training alone. They leave out the features that a frozen base computes before. Machines differ in speed and precision, and other programs may have shared them. So only a time several times as long says something. No cheaper run is more accurate than those on the grey line. It does not consider the intervals."));
  if (section.querySelector("svg")) reveal(section);
}

// Shows a section, and its link at the top of the page.
function reveal(section) {
  section.hidden = false;
  document.querySelector(`nav a[href="#${section.id}"]`).hidden = false;
}

const fromLeast = (some, key) => [...some].sort((a, b) => a[key] - b[key] || b.top1[0] - a.top1[0]);
const unbeaten = (sorted) => sorted.filter((one, i) => sorted.slice(0, i).every((before) => before.top1[0] < one.top1[0]));

// A line for each network and first weights of a notebook, that learned from different numbers of images.
function drawLabels(section, configurations) {
  const began = ({ weights }) => (weights ? `weights of ${weights.split(", file ")[0].split("/").pop()}` : "random weights");
  const title = (one) => `${one.kind}, ${began(one.settings)}`;
  const learner = (one) => `${title(one)}, ${one.settings.notebook}`;
  new Set(configurations.map((one) => one.dataset)).forEach((dataset) => {
    const here = configurations.filter((one) => one.dataset === dataset);
    const lines = [...new Set(here.map(learner))]
      .map((name) => unbeaten(fromLeast(here.filter((one) => learner(one) === name), "images")))
      .map((line) => [title(line[0]), line])
      .filter(([, line]) => line.at(-1).images >= 2 * line[0].images);
    if (!lines.length) return;
    const images = lines.flatMap(([, line]) => line.map((one) => one.images));
    const told = lines.map(([name, line]) => `${name}: ${line.map((one) => `${percent(one.top1[0])} from ${one.cost.images}`).join(", ")}.`).join(" ");
    const series = lines.map(([, line], i) => ({ look: look(i), lines: [line.map((one) => ({ x: one.images, y: one.top1[0] }))], points: line.map((one) => point(one, "images")) }));
    const ticks = [...new Set(images)].sort((a, b) => a - b).map((count) => [count, count.toLocaleString("en")]);
    section.append(make("h3", {}, dataset), legend(lines.map(([name]) => name)), make("div", { class: "charts" },
      chart("test accuracy by labelled training images", told, series,
        { name: "labelled training images", log: true, low: Math.min(...images) / 2, high: Math.max(...images) * 2, ticks })));
    reveal(section);
  });
  section.append(make("p", { class: "note" }, "A line connects the runs of one network in one notebook that began with the same file of weights, or with random ones. A run is left out if another one with as many or fewer images classifies at least as many test images correctly. So a line can't fall, and a point may be the best of several runs. Their epochs and settings differ. Bars are 95% intervals: of one run's limited number of test images, or of the mean of several seeds."));
}

// Round steps that include low and high: two or more.
function steps(low, high) {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const first = Math.floor(low / step + 1e-9);
  return Array.from({ length: Math.max(Math.ceil(high / step - 1e-9) - first, 1) + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// Series of lines and single points over an axis x = {name, log, low, high, ticks: [value, text]}.
function chart(title, told, series, x) {
  const [width, height, left, top, right, bottom] = [420, 280, 46, 26, 396, 238];
  const all = series.flatMap(({ lines = [], points = [] }) => [...lines.flat(), ...points]).filter((point) => point.y !== null);
  const ys = all.flatMap(({ y, low, high }) => [y, low ?? y, high ?? y]);
  const shares = steps(Math.min(...ys), Math.max(...ys));
  const scale = x.log ? Math.log : Number;
  const across = (value) => left + (right - left) * (scale(value) - scale(x.low)) / (scale(x.high) - scale(x.low));
  const up = (share) => bottom - (bottom - top) * (share - shares[0]) / (shares.at(-1) - shares[0]);
  const dot = ({ x, y, name }, r) => draw("circle", { cx: across(x).toFixed(1), cy: up(y).toFixed(1), r }, draw("title", {}, name));
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ${told}` },
    draw("text", { x: left, y: 14, class: "title" }, title),
    draw("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.name));
  shares.forEach((share) => svg.append(
    draw("line", { class: "grid", x1: left, x2: right, y1: up(share), y2: up(share) }),
    draw("text", { x: left - 6, y: up(share) + 4, "text-anchor": "end" }, `${Number((100 * share).toFixed(2))}%`)));
  let last = -Infinity; // of the labels below the axis; a label takes up to 45 units
  for (const [value, text] of x.ticks) {
    if (across(value) - last < 45) continue;
    last = across(value);
    svg.append(draw("text", { x: last, y: bottom + 18, "text-anchor": "middle" }, text));
  }
  series.forEach(({ look, lines = [], points = [] }) => {
    const group = svg.appendChild(draw("g", { class: look }));
    lines.forEach((line) => {
      const there = line.filter((point) => point.y !== null);
      group.append(draw("path", { d: there.map(({ x, y }, i) => `${i ? "L" : "M"}${across(x).toFixed(1)} ${up(y).toFixed(1)}`).join("") }));
      if (there.length <= 40) group.append(...there.filter((point) => point.name).map((point) => dot(point, 2.6)));
    });
    points.forEach((point) => {
      group.append(draw("line", { class: "spread", x1: across(point.x), x2: across(point.x), y1: up(point.low), y2: up(point.high) }));
      group.append(dot(point, 4.5));
    });
  });
  return make("figure", {}, svg, make("figcaption", {}, told));
}
