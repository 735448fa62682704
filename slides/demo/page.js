// What is seen: the digit, the answers, the chip and its curve. The worker (engine.js) computes.
"use strict";

const $ = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const stored = (id) => JSON.parse($(`#${id}`).textContent);
const facts = stored("facts"), text = stored("text"), NETS = [0, 1, 2];
const state = {
  language: "en", image: null, drawn: false, red: true,
  seed: 1, rate: 0, copies: false, wires: false, average: false, swapped: false,
  answers: [], wanted: [], begun: new Set(), points: new Map(),
};
let digits, workers;

// A text in the language chosen, its {names} filled in.
function say(key, values = {}) {
  return text[state.language][key].replace(/{(\w+)}/g, (_, name) => values[name]);
}

// ---- the digit ----

const ink = Object.assign(document.createElement("canvas"), { width: 280, height: 280 });
const pen = ink.getContext("2d", { willReadFrequently: true });
Object.assign(pen, { lineWidth: 24, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });

// Show grey bytes on a canvas of 28 x 28 in a colour.
function paint(canvas, image, [r, g, b]) {
  const shown = new ImageData(28, 28);
  image.forEach((value, i) => shown.data.set([r * value, g * value, b * value, 255], 4 * i));
  canvas.getContext("2d").putImageData(shown, 0, 0);
}

// What was drawn as MNIST's digits are: 20 pixels large, its centre of mass in the middle.
function shrunk() {
  const { data } = pen.getImageData(0, 0, 280, 280);
  let left = 280, right = 0, top = 280, bottom = 0, mass = 0, x = 0, y = 0;
  for (let i = 0; i < 280 * 280; i++) {
    const weight = data[4 * i + 3], column = i % 280, line = Math.floor(i / 280);
    if (!weight) continue;
    [left, right] = [Math.min(left, column), Math.max(right, column)];
    [top, bottom] = [Math.min(top, line), Math.max(bottom, line)];
    [mass, x, y] = [mass + weight, x + weight * column, y + weight * line];
  }
  const scale = 20 / Math.max(right - left, bottom - top, 60), size = 280 * scale;
  const small = document.createElement("canvas").getContext("2d");
  small.imageSmoothingQuality = "high";
  small.drawImage(ink, 14 - (scale * x) / mass, 14 - (scale * y) / mass, size, size);
  return small.getImageData(0, 0, 28, 28).data.filter((_, i) => i % 4 === 3);
}

function showDigit() {
  const pad = $("#pad").getContext("2d"), small = all("#colour canvas");
  paint(small[0], state.image, [1, 0, 0]);
  paint(small[1], state.image, [0, 1, 0]);
  pad.imageSmoothingEnabled = false;
  pad.globalCompositeOperation = "copy";
  pad.drawImage(state.drawn ? ink : small[state.red ? 0 : 1], 0, 0, 280, 280);
  pad.globalCompositeOperation = "source-atop";
  pad.fillStyle = state.red ? "#f00" : "#0f0";
  if (state.drawn) pad.fillRect(0, 0, 280, 280);
}

// Take over an image: a test digit of the row, or what is drawn.
function take(image, drawn, digit = -1) {
  Object.assign(state, { image, drawn });
  all("#row button").forEach((button, i) => button.setAttribute("aria-pressed", i === digit));
  showDigit();
  ask();
}

function draw(event) {
  const box = event.target.getBoundingClientRect();
  const at = [event.clientX - box.left, event.clientY - box.top].map((n) => (n * 280) / box.width);
  if (event.type === "pointerdown" && event.isPrimary) {
    if (!state.drawn) pen.clearRect(0, 0, 280, 280);
    event.target.setPointerCapture(event.pointerId);
    draw.last = at;
  }
  if (!event.target.hasPointerCapture(event.pointerId)) return;
  pen.stroke(new Path2D(`M${draw.last}L${at}`));
  draw.last = at;
  take(shrunk(), true);
}

// ---- answers ----

function chip(percent = state.rate) {
  return { seed: state.seed, rate: percent / 100, copies: state.copies, wires: state.wires };
}

// Send the first worker a message and wait for its answer.
function compute(message) {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => resolve(data);
    workers[0].postMessage(message, [port2]);
  });
}

// Ask for answers to what is chosen now; whatever changes meanwhile is asked afterwards.
async function ask() {
  ask.again = true;
  if (ask.busy) return;
  ask.busy = true;
  while (ask.again) {
    ask.again = false;
    const { answers, tile } = await compute({ images: [state.image], chip: chip() });
    const probability = ([zero, one]) => 1 / (1 + Math.exp(zero - one));
    state.answers = answers.map(([pair]) => pair.map(probability));
    showAnswers();
    showTile(tile);
  }
  ask.busy = false;
}

const called = (probability) => (probability > 0.5 ? "5–9" : "0–4");

function showAnswers() {
  const blank = !state.image.some((value) => value), said = [];
  state.answers.forEach((answers, net) => {
    const pair = blank ? [0.5, 0.5] : answers, mean = (pair[0] + pair[1]) / 2;
    const [red, green] = state.average ? [mean, mean] : pair, article = all("#nets article")[net];
    const flips = called(red) !== called(green), same = state.average ? "averaged" : "same";
    all(".red, .green", article).forEach((bar, i) => {
      bar.style.left = `${100 * Math.min(pair[i], 0.5)}%`;
      bar.style.right = `${100 - 100 * Math.max(pair[i], 0.5)}%`;
    });
    all(".mean", article).forEach((bar) => (bar.style.left = `${100 * mean}%`));
    article.className = flips ? "flips" : same;
    $(".answer b", article).textContent = blank ? "?" : called(state.red ? red : green);
    const asked = state.average ? "inBoth" : state.red ? "inRed" : "inGreen";
    $(".answer small", article).textContent = say(asked);
    $(".mark", article).textContent = say(blank ? "nothing" : flips ? "changes" : same);
    said.push(say("said", { name: say(`name${net}`), red: called(red), green: called(green) }));
  });
  $("#said").textContent = blank ? "" : said.join(" ");
}

// ---- the chip ----

function showTile(tile) {
  const shown = new ImageData(facts.tile, facts.tile), used = tile.filter((value) => value);
  tile.forEach((value, i) => {
    const healthy = value ? [20 + value / 3, 35 + value / 2, 60 + value / 2, 255] : [0, 0, 0, 20];
    shown.data.set(value === 255 ? [255, 190, 40, 255] : healthy, 4 * i);
  });
  $("#tile").getContext("2d").putImageData(shown, 0, 0);
  const lit = used.filter((value) => value === 255).length;
  $("#lit").textContent = say("lit", { all: used.length, lit });
}

// The name of a point of the curve: all that it depends on. Without a stuck device chips are alike.
function point(net, rate) {
  const { seed, copies, wires, average, swapped } = state;
  return [net, rate, rate && seed, copies, wires, average, swapped].join();
}

const rates = () => [...new Set([state.rate, 0, 10, 20, 30, 50])];

// Each point of the curve that is not known is asked of the next worker that is free: on the first
// hundred digits, then on the others.
function startCurve() {
  const { average, swapped } = state, whole = facts.labels.length;
  const step = (from, to) => rates().flatMap((rate) => NETS.map((net) => (
    { point: point(net, rate), net, chip: chip(rate), average, swapped, from, to })));
  state.wanted = [...step(0, 100), ...step(100, facts.labels.length)]
    .filter(({ point, from }) => !state.begun.has(`${point} ${from}`));
  workers.slice(1).forEach(askNext);
  showCurve();
}

function askNext(worker) {
  if (worker.busy || !state.wanted.length) return;
  worker.busy = state.wanted.shift();
  state.begun.add(`${worker.busy.point} ${worker.busy.from}`);
  worker.postMessage(worker.busy);
}

function heard({ target, data: { point, right, from, to } }) {
  const before = state.points.get(point) ?? { right: 0, asked: 0 };
  state.points.set(point, { right: before.right + right, asked: before.asked + to - from });
  target.busy = null;
  askNext(target);
  showCurve();
}

function showCurve() {
  const x = (rate) => 34 + 5.6 * rate, y = (share) => 160 - 150 * share, end = x(50), ends = [];
  const write = (x, y, words, more) => `<text x="${x}" y="${y}" ${more}>${words}</text>`;
  const line = (places, more = "") => `<path d="M${places.join("L")}" ${more}/>`;
  const { ceiling } = facts, most = say("ceiling", { share: Math.round(100 * ceiling) });
  const drawn = [
    line([[x(0), y(ceiling)], [end, y(ceiling)]], 'stroke-dasharray="5 4"'),
    line([[x(state.rate), y(0)], [x(state.rate), y(1)]]),
    write(end, y(ceiling) - 6, most, 'text-anchor="end"'),
  ];
  NETS.forEach((net) => {
    const places = rates().sort((a, b) => a - b).flatMap((rate) => {
      const { right, asked } = state.points.get(point(net, rate)) ?? {};
      return asked ? [[x(rate), y(right / asked)]] : [];
    });
    const own = `style="--own: var(--net${net})"`;
    const dot = ([x, y]) => `<circle cx="${x}" cy="${y}" r="3.5" ${own}/>`;
    if (places.length) {
      ends.push({ net, own, y: places.at(-1)[1] + 4 });
      drawn.push(line(places, `class="line" ${own}`), ...places.map(dot));
    }
    const { right, asked } = state.points.get(point(net, state.rate)) ?? {};
    const share = Math.round((100 * right) / asked);
    all(".share")[net].textContent = asked ? say("share", { asked, share }) : "";
  });
  ends.sort((a, b) => a.y - b.y).forEach((name, i) => { // at the ends of lines, but apart
    name.y = Math.max(name.y, i && ends[i - 1].y + 15);
    drawn.push(write(end + 10, name.y, say(`short${name.net}`), `class="name" ${name.own}`));
  });
  $("#lines").innerHTML = drawn.join("");
}

// ---- switches, words, start ----

function change(values) {
  Object.assign(state, values);
  $("#percent").textContent = `${state.rate}%`;
  $("#number").textContent = say("number", { number: state.seed });
  showDigit();
  ask();
  startCurve();
}

// Show the words of the language that the address ends with: demo.html#zh.
function translate() {
  document.documentElement.lang = state.language = location.hash === "#zh" ? "zh" : "en";
  document.title = say("title");
  all("[data-t]").forEach((node) => (node.textContent = say(node.dataset.t, stored("numbers"))));
  all("[data-label]").forEach((node) => {
    node.setAttribute("aria-label", say(node.dataset.label, { digit: node.dataset.digit }));
  });
  change({});
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(`#${id}`).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start() {
  const planes = await unpacked("planes"), engine = [$("#engine").textContent];
  digits = await unpacked("digits");
  const address = URL.createObjectURL(new Blob(engine, { type: "text/javascript" }));
  const cores = Math.min(navigator.hardwareConcurrency || 2, 8);
  const work = () => Object.assign(new Worker(address), { onmessage: heard });
  workers = Array.from({ length: 1 + cores }, work); // the first one is for answers
  workers.forEach((worker) => worker.postMessage({ facts, planes, digits }));
  all("#row button").forEach((button, digit) => {
    const image = digits.subarray(784 * facts.row[digit], 784 * (facts.row[digit] + 1));
    button.onclick = () => take(image, false, digit);
    paint($("canvas", button), image, [1, 1, 1]);
  });
  $("#pad").onpointerdown = $("#pad").onpointermove = draw;
  $("#clear").onclick = () => take(new Uint8Array(784), false);
  $("#another").onclick = () => change({ seed: state.seed + 1 });
  $("#colour").onchange = ({ target }) => change({ red: target.value === "red" });
  $("#world").onchange = ({ target }) => change({ swapped: target.value === "training" });
  $("#rate").oninput = ({ target }) => change({ rate: Number(target.value) });
  all("[type=checkbox]").forEach((box) => (box.onchange = () => change({ [box.id]: box.checked })));
  $("#language").onclick = () => (location.hash = state.language === "en" ? "zh" : "en");
  window.onhashchange = translate;
  $("#old").remove();
  $("#page").hidden = false;
  $("#row").children[3].click();
  translate();
}

if ("DecompressionStream" in window && CSS.supports("selector(:has(a))")) start();
