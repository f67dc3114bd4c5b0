"use strict";
// Light and dark, charts, tables that are cut off. Descriptions of charts lie in the page as JSON.

const root = document.documentElement;
const system = window.matchMedia("(prefers-color-scheme: dark)");
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const CONFIG = { responsive: true, displaylogo: false, scrollZoom: false,
  showSendToCloud: false, plotlyServerURL: "",  // nothing leaves the page
  modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"] };

function themed(layout) {
  const axis = { gridcolor: color("--line"), linecolor: color("--line"), zerolinecolor: color("--line"),
    automargin: true };
  return { margin: { l: 50, r: 10, t: 30, b: 40 },
    // At the bottom: at the top the buttons would lie on it.
    legend: { orientation: "h", x: 0, yref: "container", y: 0, yanchor: "bottom", traceorder: "normal" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hoverlabel: { namelength: -1 }, ...layout,
    font: { family: "system-ui, sans-serif", size: 12, color: color("--ink") },
    modebar: { color: color("--soft"), activecolor: color("--ink"), bgcolor: "rgba(0,0,0,0)" },
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
}

// Redrawn where the colours change: on the button, with the system, for paper.
const drawings = [];
function drawn(draw) { drawings.push(draw); draw(); }
function paint(theme) {
  root.dataset.theme = theme;
  for (const draw of drawings) draw();
}

function drawCharts() {
  for (const element of document.querySelectorAll(".plot[data-chart]")) {
    const plot = read(element.dataset.chart);
    drawn(() => Plotly.react(element, plot.data, themed(plot.layout), CONFIG));
  }
}

function watchTables() {
  const look = (box) => box.classList.toggle("cut", box.scrollWidth > box.clientWidth + 1
    || box.scrollHeight > box.clientHeight + 1);
  const observer = new ResizeObserver((entries) => entries.forEach((entry) => look(entry.target.closest(".wide"))));
  document.querySelectorAll(".wide, .wide table").forEach((box) => observer.observe(box));
}

root.dataset.theme = system.matches ? "dark" : "light";
drawCharts();
watchTables();
document.querySelector(".theme").addEventListener("click",
  () => paint(root.dataset.theme === "dark" ? "light" : "dark"));
system.addEventListener("change", () => paint(system.matches ? "dark" : "light"));
let before = "light";
window.addEventListener("beforeprint", () => { before = root.dataset.theme; paint("light"); });
window.addEventListener("afterprint", () => paint(before));

// Queries in place. One figure: photograph, a map over it, outlines, points.
function showQueries(data) {
  const at = (id) => document.getElementById(`view-${id}`);
  const plot = at("plot"), round = at("round"), layer = at("layer"), table = at("table");
  const fill = (select, names) => names.forEach((name, index) => select.add(new Option(name, index)));
  fill(at("image"), data.images.map((image) => `${image.reason}: ${image.id}`));
  fill(at("member"), data.members.map((member) => member.name));
  const canHover = window.matchMedia("(hover: hover)").matches;
  const config = { ...CONFIG, scrollZoom: canHover, displayModeBar: true,
    modeBarButtonsToRemove: [...CONFIG.modeBarButtonsToRemove, "toImage"] };
  const number = (value) => value.toPrecision(3);

  const state = () => {
    const image = Number(at("image").value), member = Number(at("member").value);
    return { image, member, seen: data.images[image], asked: data.members[member].queries[image],
      outlines: data.members[member].outlines[image], maps: data.maps[member][image] };
  };
  const nameOf = (id) => (id === null || id < 0 ? "–" : data.classes[id]);
  const answerOf = (query) => (query.answered === null ? query.status : nameOf(query.answered));

  function why(query, member) {
    if (query.round === 0) return "at random, before there was a network";
    const said = [];
    if (query.budget !== null) {
      said.push(`cluster ${query.cluster_id} got ${query.budget} of the round's budget`
        + ` (${(100 * query.share).toFixed(0)} % of all doubt)`);
    }
    if (query.mean_score !== null) {
      said.push(`its superpixel, mostly ${nameOf(query.dominant)}, has mean doubt ${number(query.mean_score)}`);
    }
    if (query.score !== null) said.push(`score ${number(query.score)}`);
    const terms = Object.entries(query.terms).filter(([name]) => name !== "score");
    const split = terms.map(([name, value]) => `${name} ${number(value)}`).join(", ");
    const text = said.length ? said.join("; ") : `chosen by ${data.members[member].name}`;
    return split ? `${text}; of the pixel: ${split}` : text;
  }

  const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const wrapped = (text) => escape(text).replace(/; /g, ";<br>");

  function traces(queries, outlines, view, member) {
    const now = queries.filter((query) => query.round === view);
    const before = queries.filter((query) => query.round < view);
    const x = [], y = [];
    for (const id of new Set(now.map((query) => query.superpixel))) {
      for (const line of outlines[id] ?? []) {
        for (let i = 0; i < line.length; i += 2) { x.push(line[i]); y.push(line[i + 1]); }
        x.push(null); y.push(null);
      }
    }
    const text = (query, index) => `<b>${index + 1}</b> predicted ${escape(nameOf(query.predicted))}, answered `
      + `<b>${escape(answerOf(query))}</b><br>superpixel ${query.superpixel}, cluster ${query.cluster_id ?? "–"}`
      + `<br>${wrapped(why(query, member))}`;
    const dots = (list, marker, more) => ({ type: "scatter", x: list.map((query) => query.x),
      y: list.map((query) => query.y), text: list.map(text), hovertemplate: "%{text}<extra></extra>",
      mode: "markers", marker, ...more });
    return [
      { type: "scatter", name: "superpixels asked now", x, y, mode: "lines", hoverinfo: "skip",
        line: { color: "#ff2bd6", width: 2 } },
      { ...dots(before, { size: 6, color: "#00e5ff", line: { color: "#000", width: 1 } }), name: "asked before" },
      { ...dots(now, { size: 19, color: "#ffe600", line: { color: "#000", width: 1.5 } }), name: "asked now" },
      // Numbers are a trace of their own, so that they stay readable above the circles.
      { type: "scatter", x: now.map((query) => query.x), y: now.map((query) => query.y), mode: "text",
        text: now.map((query, index) => String(index + 1)), textfont: { color: "#000", size: 11 },
        hoverinfo: "skip", showlegend: false },
    ];
  }

  function rows(queries, member) {
    table.tBodies[0].replaceChildren(...queries.map((query, index) => {
      const row = document.createElement("tr");
      const go = document.createElement("button");
      go.type = "button"; go.className = "row-button"; go.textContent = index + 1;
      go.setAttribute("aria-label", `show query ${index + 1}`);
      go.addEventListener("click", () => zoomTo(query));
      const first = document.createElement("th");
      first.scope = "row"; first.append(go); row.append(first);
      for (const [text, kind] of [[nameOf(query.predicted), "words"], [answerOf(query), "words"],
        [query.superpixel, ""], [query.cluster_id ?? "–", ""], [why(query, member), "words why"]]) {
        const cell = row.insertCell();
        cell.textContent = text; cell.className = kind;
      }
      return row;
    }));
  }

  function zoomTo(query) {
    const { seen } = state(), reach = Math.max(seen.width, seen.height) / 10;
    Plotly.relayout(plot, { "xaxis.range": [query.x - reach, query.x + reach],
      "yaxis.range": [query.y + reach, query.y - reach] });
    plot.scrollIntoView({ block: "nearest" });
  }

  function draw() {
    const { image, member, seen, asked, outlines, maps } = state();
    round.max = maps.length - 1;
    if (round.dataset.touched === undefined) round.value = maps.length - 1;
    const view = maps[round.value];
    at("round-name").textContent = `${view.round}`;
    const size = { xref: "x", yref: "y", x: 0, y: 0, sizex: seen.width, sizey: seen.height, sizing: "stretch",
      layer: "below" };
    const over = layer.value === "truth" ? seen.truth : view[layer.value];
    const images = [{ ...size, source: seen.photo }];
    // Plotly knows an image by its place and size: two of the very same would be one.
    if (over) images.push({ ...size, sizex: seen.width + 1e-6, source: over, opacity: at("strength").value / 100 });
    const now = asked.filter((query) => query.round === view.round && query.unit !== "image");
    const hidden = { visible: false, constrain: "domain" };
    plot.style.height = `min(75vh, ${plot.clientWidth * seen.height / seen.width + 90}px)`;
    Plotly.react(plot, traces(asked.filter((query) => query.unit !== "image"), outlines, view.round, member),
      { ...themed({ margin: { l: 0, r: 0, t: 30, b: 0 }, xaxis: {}, yaxis: {} }), images, hovermode: "closest",
        dragmode: canHover ? "pan" : false, uirevision: `${image}`,
        legend: { orientation: "h", x: 0, y: 0, yanchor: "top" },
        xaxis: { ...hidden, range: [0, seen.width] },
        yaxis: { ...hidden, range: [seen.height, 0], scaleanchor: "x" } }, config);
    rows(now, member);
    const original = `original ${seen.original[1]} × ${seen.original[0]}, working grid ${seen.width} × ${seen.height}`;
    const whole = asked.filter((query) => query.unit === "image" && query.round <= view.round);
    at("note").textContent = `${seen.id} (${seen.reason}), round ${view.round}: ${now.length} queries; ${original}. `
      + (whole.length ? "The whole image was asked. " : "")
      + (layer.value === "score" ? `Uncertainty: ${data.members[member].score}, bright = ask first. ` : "")
      + (layer.value === "errors" ? "Red: predicted wrongly; grey: void. " : "")
      + (over || layer.value === "none" ? "" : "There is no mask to show or compare with.");
  }

  round.addEventListener("input", () => { round.dataset.touched = ""; draw(); });
  for (const id of ["image", "member", "layer", "strength"]) at(id).addEventListener("input", draw);
  at("member").parentElement.hidden = data.members.length === 1;
  drawn(draw);
}

if (document.getElementById("viewer")) showQueries(read("viewer"));
