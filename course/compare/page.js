"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const root = document.documentElement;

// --- theme: that of the system, until the button is pressed -----------------------------------------------------------
const themeButton = document.getElementById("theme");
const darkSystem = matchMedia("(prefers-color-scheme: dark)");

function setTheme(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  themeButton.textContent = dark ? "Light" : "Dark";
  themeButton.setAttribute("aria-pressed", String(dark));
  drawAll();
}
themeButton.addEventListener("click", () => setTheme(root.dataset.theme !== "dark"));
darkSystem.addEventListener("change", (event) => setTheme(event.matches));

// --- which forks, which weeks -----------------------------------------------------------------------------------------
const rules = document.head.appendChild(document.createElement("style"));

function applyFilter() {
  rules.textContent = [...hidden].map((i) => `main .f${i} { display: none; }`).join("\n");
  for (const div of document.querySelectorAll(".plot")) filterPlot(div);
}
for (const box of document.querySelectorAll("input[data-fork]")) {
  box.addEventListener("change", () => {
    if (box.checked) hidden.delete(Number(box.dataset.fork));
    else hidden.add(Number(box.dataset.fork));
    applyFilter();
  });
}
const weekChoice = document.getElementById("week");
if (weekChoice) {
  weekChoice.addEventListener("change", () => {
    for (const part of document.querySelectorAll("[data-week]")) {
      part.hidden = weekChoice.value !== "" && part.dataset.week !== weekChoice.value;
    }
    drawAll();
  });
}
addEventListener("hashchange", openTarget);
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") target.open = true;
}

// --- curves -----------------------------------------------------------------------------------------------------------
const BUTTONS = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

function colour(name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}
function faded(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}
function bandTraces(panel, axes, first, seeds) {
  if (!panel.band) return [];
  const grey = colour("--band"), band = panel.band, name = `reference, ${seeds} seeds`;
  const common = { ...axes, legendgroup: "reference", hoverinfo: "skip", mode: "lines", fork: -1 };
  return [
    { ...common, x: band.step, y: band.low, line: { width: 0 }, showlegend: false },
    { ...common, x: band.step, y: band.high, line: { width: 0 }, fill: "tonexty", fillcolor: faded(grey, 0.25), name, showlegend: first },
    { ...common, x: band.step, y: band.mean, line: { width: 1, color: grey }, showlegend: false },
  ];
}
function draw(div) {
  const figure = data.figures[Number(div.dataset.figure)];
  const columns = Math.min(figure.panels.length, div.clientWidth > 1000 ? 3 : div.clientWidth > 620 ? 2 : 1);
  const rows = Math.ceil(figure.panels.length / columns);
  const text = colour("--text"), soft = colour("--line"), size = parseFloat(getComputedStyle(root).fontSize) * 0.8;
  const traces = [], named = new Set();
  const layout = {
    grid: { rows, columns, pattern: "independent", xgap: 0.16, ygap: 0.32 },
    height: 80 + 17 * size * rows, margin: { l: 55, r: 15, t: 70, b: 45 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, size },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1, yref: "container", yanchor: "top" },
    hovermode: "closest", annotations: [],
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: text },
  };
  figure.panels.forEach((panel, number) => {
    const n = number ? String(number + 1) : "", axes = { xaxis: `x${n}`, yaxis: `y${n}` };
    traces.push(...bandTraces(panel, axes, !named.has("reference"), figure.seeds));
    if (panel.band) named.add("reference");
    for (const line of panel.lines) {
      const fork = data.forks.indexOf(line.fork);
      traces.push({
        ...axes, fork, name: line.fork, legendgroup: `fork ${fork}`, showlegend: !named.has(fork), mode: "lines",
        x: line.points.map((point) => point[0]), y: line.points.map((point) => point[1]),
        line: { width: 2.4, color: colour(`--c${fork % 10}`), dash: DASHES[fork % DASHES.length] },
        hovertemplate: `%{y:.4g} at step %{x}<extra>${line.fork}, seed ${line.seed}</extra>`,
      });
      named.add(fork);
    }
    const grid = { gridcolor: soft, linecolor: soft, zerolinecolor: soft };
    layout[`xaxis${n}`] = { ...grid, title: { text: number >= figure.panels.length - columns ? "step" : "" } };
    layout[`yaxis${n}`] = panel.share ? { ...grid, range: [0, 1.02] } : grid;
    layout.annotations.push({
      text: panel.label, showarrow: false, xref: `x${n} domain`, yref: `y${n} domain`, x: 0, xanchor: "left", y: 1.03,
      yanchor: "bottom", font: { size: size * 1.02 },
    });
  });
  const shown = traces.map(({ fork, ...trace }) => trace);
  div.forks = traces.map((trace) => trace.fork);
  Plotly.react(div, shown, layout, { responsive: true, displaylogo: false, modeBarButtons: BUTTONS });
  filterPlot(div);
}
function filterPlot(div) {
  if (div.forks) Plotly.restyle(div, { visible: div.forks.map((fork) => (hidden.has(fork) ? false : true)) });
}
function drawAll() {
  for (const div of document.querySelectorAll(".plot")) if (div.offsetParent) draw(div);
}

// --- code side by side ------------------------------------------------------------------------------------------------
// The longest common subsequence of two lists, as pairs [i, j]; -1 where one side has nothing.
function align(a, b) {
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const pairs = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) pairs.push([i++, j++]);
    else if (j === b.length || (i < a.length && best[i + 1][j] >= best[i][j + 1])) pairs.push([i++, -1]);
    else pairs.push([-1, j++]);
  }
  return pairs;
}
// Lines that only one side has, next to each other where both sides have some.
function lines(a, b) {
  const rows = [], left = [], right = [];
  const flush = () => {
    while (left.length || right.length) rows.push([left.shift() ?? -1, right.shift() ?? -1]);
  };
  for (const [i, j] of align(a.map((line) => line.trimEnd()), b.map((line) => line.trimEnd()))) {
    if (i >= 0 && j >= 0) {
      flush();
      rows.push([i, j]);
    } else if (i >= 0) left.push(i);
    else right.push(j);
  }
  flush();
  return rows;
}
const words = (line) => line.match(/\w+|\s+|[^\w\s]/g) ?? [];
// Is one line the other with some changes?
function alike(a, b) {
  const [mine, theirs] = [a, b].map((line) => words(line).filter((word) => word.trim()));
  const common = align(mine, theirs).filter(([i, j]) => i >= 0 && j >= 0).length;
  return 2 * common >= Math.max(mine.length, theirs.length);
}
function marked(line, other) {
  const mine = words(line), theirs = words(other);
  const cell = document.createElement("td");
  for (const [i, j] of align(mine, theirs)) {
    if (i < 0) continue;
    if (j >= 0) cell.append(mine[i]);
    else cell.appendChild(document.createElement("mark")).textContent = mine[i];
  }
  return cell;
}
function side(row, line, other, kind, sign) {
  const gutter = row.insertCell();
  gutter.className = "sign";
  gutter.textContent = line === null ? "" : sign;
  const cell = line !== null && kind === "changed" ? marked(line, other) : document.createElement("td");
  if (line !== null && kind !== "changed") cell.textContent = line;
  if (line !== null && kind) cell.className = kind;
  row.appendChild(cell);
}
function diffTable(left, right) {
  const a = left.split("\n"), b = right.split("\n"), table = document.createElement("table");
  table.className = "diff";
  table.createCaption().textContent = "Two approaches; − only left, + only right, ~ changed";
  for (const kind of ["sign", "", "sign", ""]) {
    table.appendChild(document.createElement("col")).className = kind;
  }
  for (const [i, j] of lines(a, b)) {
    const mine = i < 0 ? null : a[i], theirs = j < 0 ? null : b[j], row = table.insertRow();
    const same = mine !== null && theirs !== null && mine.trimEnd() === theirs.trimEnd();
    const both = mine !== null && theirs !== null && alike(mine, theirs);
    side(row, mine, theirs, same ? "" : both ? "changed" : "gone", same ? "" : both ? "~" : "−");
    side(row, theirs, mine, same ? "" : both ? "changed" : "new", same ? "" : both ? "~" : "+");
  }
  return table;
}
function wayName(group, number) {
  const names = [...group.forks, ...(group.solution ? ["the worked solution"] : [])];
  return `${number + 1}: ${names.join(", ")} ${group.green ? "✓" : "✗"}`;
}
function fill(details) {
  if (details.dataset.filled) return;
  details.dataset.filled = "yes";
  const groups = data.code[Number(details.dataset.code)], panes = document.createElement("div");
  panes.className = "panes";
  const choices = ["Left", "Right"].map((where, at) => {
    const label = panes.appendChild(document.createElement("label")), select = document.createElement("select");
    label.append(`${where} `, select);
    groups.forEach((group, number) => select.add(new Option(wayName(group, number), number)));
    select.selectedIndex = Math.min(at, groups.length - 1);
    return select;
  });
  const place = document.createElement("div");
  const show = () => place.replaceChildren(diffTable(...choices.map((select) => groups[select.value].text)));
  for (const select of choices) select.addEventListener("change", show);
  details.append(panes, place);
  show();
}
for (const details of document.querySelectorAll("details.code")) {
  details.addEventListener("toggle", () => details.open && fill(details));
}

// --- begin ------------------------------------------------------------------------------------------------------------
setTheme(darkSystem.matches);
openTarget();
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) drawAll();
  width = innerWidth;
});
