// Carries a running job's page on: every step comes by its sequence number, so a lost connection goes on where it broke. At the end the
// server is asked for the finished page, as it knows best how that looks, and its part is put in the place of this one.
const live = document.getElementById("live");
const place = document.getElementById("plot");
const by = (id) => document.getElementById(id);
const FINISHED = ["succeeded", "failed", "cancelled", "gone"];
const LINES = 300; // of the log
const SERIES = { // what is drawn: its name, its colour, whether its points are joined
  loss: ["loss", "--quiet", false],
  best: ["best so far", "--accent", true],
  validation_loss: ["validation loss", "--accent", true],
  reward: ["reward", "--accent", true],
  learning_rate_a: ["learning rate of A", "--warn", true],
  learning_rate_b: ["learning rate of B", "--good", true],
};
const rate = (name) => name.startsWith("learning_rate");
const short = (value) => Number(value.toPrecision(4)).toString();

// --- numbers ---------------------------------------------------------------------------------------------------------

// In the same words as the server's.
function duration(seconds) {
  if (seconds < 60) return seconds >= 10 ? `${Math.round(seconds)} s` : `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  for (const [unit, length, below, part] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (whole < length) continue;
    const rest = Math.floor((whole % length) / part);
    return `${Math.floor(whole / length)} ${unit}${rest ? ` ${rest} ${below}` : ""}`;
  }
}

// The clock of this page, which need not agree with the server's, counts on from what the server said.
let running = live.dataset.taken === "" ? null : performance.now() - 1000 * Number(live.dataset.taken);
setInterval(() => {
  if (running !== null && live.isConnected) by("taken").textContent = duration((performance.now() - running) / 1000);
}, 1000);

let begun = null; // the first step of this part
function left(event) {
  if ("seconds_left" in event.numbers) return event.numbers.seconds_left;
  if (!begun || begun.phase !== event.phase || begun.attempt !== event.attempt) begun = event;
  if (event.step <= begun.step) return null;
  return (Date.parse(event.at) - Date.parse(begun.at)) / 1000 / (event.step - begun.step) * (event.total - event.step);
}

function showStep(event) {
  by("phase").textContent = event.phase.charAt(0).toUpperCase() + event.phase.slice(1);
  by("bar").max = event.total || 1;
  by("bar").value = event.step;
  by("step").textContent = event.total ? `${event.step} of ${event.total}` : "–";
  const seconds = left(event);
  by("left").textContent = seconds === null ? "–" : `about ${duration(seconds)}`;
  const numbers = Object.entries(event.numbers).filter(([name]) => name !== "seconds_left");
  by("numbers").textContent = numbers.map(([name, value]) => `${name.replaceAll("_", " ")} ${short(value)}`).join(" · ") || "–";
}

function writeLine(event) {
  const row = document.createElement("tr");
  const at = new Date(event.at);
  const time = Object.assign(document.createElement("time"), { dateTime: event.at, textContent: at.toLocaleTimeString("en-GB") });
  const numbers = Object.entries(event.numbers).map(([name, value]) => `${name} ${short(value)}`).join("  ");
  for (const text of [time, event.phase, event.total ? `${event.step}/${event.total}` : "", numbers || (event.step ? "" : "begins")]) {
    const cell = document.createElement("td");
    cell.append(text);
    row.append(cell);
  }
  row.children[2].className = "number";
  row.children[3].className = "mono";
  by("log").prepend(row);
  while (by("log").rows.length > LINES) by("log").lastElementChild.remove();
}

// --- curves ----------------------------------------------------------------------------------------------------------

const parts = new Map(); // part of the job -> the points of its curves, {step, ...}
let attempt = Number(live.dataset.attempt);
let followed = true; // the newest part is shown, until a reader chooses another
let shown = null, chart = null, drawn = [], due = false;

function keepPoint(event) {
  if (event.attempt !== undefined && event.attempt !== attempt) {
    attempt = event.attempt;
    parts.clear(); // what the lost worker had done is done again, or was kept and is not reported again
  }
  const names = Object.keys(SERIES).filter((name) => name in event);
  if (!event.step || !names.length) return;
  if (!parts.has(event.phase)) {
    parts.set(event.phase, []);
    if (followed) shown = event.phase;
  }
  const points = parts.get(event.phase);
  while (points.length && points.at(-1).step >= event.step) points.pop(); // goes on from a place before
  points.push(Object.fromEntries(["step", ...names].map((name) => [name, event[name]])));
}

// Colours of the page as it looks now; a variable's own text may be of two schemes.
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  place.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function makeChart(names, data) {
  const ink = colour("--quiet"), grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: ink, grid, ticks: grid, font: "11px system-ui" };
  const series = names.map((name) => {
    const [label, variable, joined] = SERIES[name];
    const stroke = colour(variable);
    return {
      label, stroke, width: joined ? 1.5 : 0, dash: rate(name) ? [4, 3] : undefined, scale: rate(name) ? "rate" : "y", spanGaps: true,
      points: { show: !joined || name === "validation_loss", size: 5, fill: stroke }, value: (_, value) => (value == null ? "–" : short(value)),
    };
  });
  const axes = [{ ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5], label: "step", labelFont: axis.font, labelSize: 18 }, { ...axis, size: 60 }];
  if (names.some(rate)) axes.push({ ...axis, scale: "rate", side: 1, size: 60, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => tick.toExponential(0)) });
  place.replaceChildren();
  chart = new uPlot(
    { width: place.clientWidth, height: 240, scales: { x: { time: false } }, series: [{ label: "step" }, ...series], axes, legend: { live: true } },
    data, place,
  );
  place.setAttribute("role", "img");
}

function draw() {
  due = false;
  const points = parts.get(shown);
  if (!points || !live.isConnected) return;
  const names = Object.keys(SERIES).filter((name) => points.some((point) => name in point));
  const data = [points.map((point) => point.step), ...names.map((name) => points.map((point) => point[name] ?? null))];
  if (chart && names.join() === drawn.join()) chart.setData(data);
  else makeChart(names, data);
  drawn = names;
  const title = shown.charAt(0).toUpperCase() + shown.slice(1);
  by("plotted").textContent = title;
  place.setAttribute("aria-label", `${title}: ${names.map((name) => SERIES[name][0]).join(", ")} by step, ${points.length} so far; the log has the figures`);
  showParts();
}

function showParts() {
  const list = by("phases");
  list.hidden = parts.size < 2;
  for (const name of parts.keys()) {
    if ([...list.children].some((button) => button.textContent === name)) continue;
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.onclick = () => {
      shown = name;
      followed = name === [...parts.keys()].at(-1);
      redraw();
    };
    list.append(button);
  }
  for (const button of list.children) button.setAttribute("aria-pressed", String(button.textContent === shown));
}

function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(draw); // once for all events that came together
}

for (const point of JSON.parse(place.dataset.points)) keepPoint(point);
redraw();
new ResizeObserver(() => chart && chart.setSize({ width: place.clientWidth, height: 240 })).observe(place);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawn = [];
  redraw();
});

// --- the stream ------------------------------------------------------------------------------------------------------

let seen = Number(live.dataset.after), wait = 1000;

function say(text) {
  by("connection").hidden = !text;
  by("connection").textContent = text;
}

function setState(state) {
  by("state").textContent = state;
  by("state").className = `state ${state}`;
  if (state === "running" && running === null) running = performance.now();
  if (state === "running") by("wait")?.remove();
}

function follow() {
  const stream = new EventSource(`${live.dataset.stream}?after=${seen}`);
  stream.onopen = () => {
    wait = 1000;
    say("");
  };
  stream.onerror = () => {
    say("The connection is lost. Trying again; nothing of the job is.");
    // The browser comes back by itself after a broken line, but not after an answer that is an error, as from a proxy.
    if (stream.readyState !== EventSource.CLOSED) return;
    setTimeout(follow, wait);
    wait = Math.min(2 * wait, 30000);
  };
  stream.addEventListener("progress", (message) => {
    const event = JSON.parse(message.data);
    if (event.seq <= seen) return;
    seen = event.seq;
    setState("running");
    showStep(event);
    writeLine(event);
    keepPoint({ ...event, ...event.numbers });
    redraw();
  });
  stream.addEventListener("state", (message) => {
    const { state } = JSON.parse(message.data);
    if (!FINISHED.includes(state)) return setState(state);
    stream.close();
    finish(state);
  });
}

// What had the focus keeps it if it is there still; else the page's main part has it, and the news are read out.
async function finish(state) {
  if (state === "gone") return location.reload();
  await htmx.ajax("GET", location.href, { target: "#job", select: "#job", swap: "outerHTML" });
  by("news").textContent = `The job has ${state === "cancelled" ? "been cancelled" : state}.`;
  if (document.activeElement === document.body) by("main").focus({ preventScroll: true });
}

follow();
