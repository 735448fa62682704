// The worker: three networks on simulated memristors, as sections 6 and 7 of the notebook define
// them. `facts` holds the hardware, the layers and the networks; see build.py.
"use strict";

// `mac`, `adc` and `activate` are the inner loops, see kernel.py; they work in `memory`, where
// `places` says what lies where, in bytes, and `loaded` which matrices those are. Then what was
// computed before, by what it was made from.
let facts, digits, weights, given, mac, adc, activate, memory, places, loaded;
const plans = new Map(), orders = new Map(), chips = new Map();

// ---- chips: { seed, rate, copies, wires }, or { software: true }, or { given: a number } ----

const padded = (columns) => Math.ceil(columns / facts.block) * facts.block;
const floats = (start, count) => new Float32Array(memory.buffer, start, count);

// What `make(...key)` gave the last time; a few dozen values are kept.
function remembered(store, key, make) {
  const name = JSON.stringify(key);
  if (!store.has(name)) {
    if (store.size > 30) store.clear();
    store.set(name, make(...key));
  }
  return store.get(name);
}

// The devices of an array in the order in which they get stuck, by chip and array alone: at a
// higher rate the same ones are stuck and more. Random numbers by mulberry32.
function stuckOrder(seed, array, count) {
  let state = Math.imul(seed, 0x9e3779b1) ^ Math.imul(array + 1, 0x85ebca77);
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    const j = Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * (i + 1));
    order[i] = order[j];
    order[j] = i;
  }
  return order;
}

// An array's conductances in siemens for the weights of a layer: the first array, sign 1, or the
// second, sign -1 (`naive_map`, `balanced_map`).
function planned(net, l, sign) {
  const { balanced, largest } = facts.networks[net], range = facts.high - facts.low;
  return weights[net][l].map((weight) => {
    const share = (sign * weight) / largest[l];
    return facts.low + range * (balanced ? (1 + share) / 2 : Math.max(0, share));
  });
}

// An array's devices [rows, columns x copies] in siemens, and which of them are stuck, namely at
// low resistance. Copies stand in the idle columns of the layer's tiles (`with_copies`).
function devicesOf(net, l, a, chip) {
  const { columns } = facts.layers[l], room = Math.floor(facts.tile / columns);
  const copies = chip.copies ? Math.max(1, Math.min(facts.copies, room)) : 1;
  const plan = remembered(plans, [net, l, 1 - 2 * a], planned);
  const devices = new Float32Array(plan.length * copies);
  for (let i = 0; i < devices.length; i += columns) {
    const row = Math.floor(i / columns / copies);
    devices.set(plan.subarray(row * columns, (row + 1) * columns), i);
  }
  const order = remembered(orders, [chip.seed, 2 * l + a, devices.length], stuckOrder);
  const stuck = order.subarray(0, Math.round(chip.rate * devices.length));
  for (const device of stuck) devices[device] = facts.high;
  return { devices, stuck, copies, wide: columns * copies };
}

// What devices show through wires, in place: each lowered by the voltage that its row and column
// would lose if the others lost none. The notebook's `effective_conductances` is exact.
function throughWires(g, wide) {
  for (let top = 0; top < g.length; top += facts.tile * wide) {
    const tile = g.subarray(top, top + facts.tile * wide), height = tile.length / wide;
    const lost = new Float32Array(tile.length).fill(1);
    const follow = (start, step, count) => { // a wire, from its end that is driven or read
      let behind = 0, drop = 0;
      for (let k = 0; k < count; k++) behind += tile[start + k * step];
      for (let k = 0, i = start; k < count; k++, i += step) {
        drop += facts.ohms * behind;
        lost[i] *= 1 + drop;
        behind -= tile[i];
      }
    };
    for (let row = 0; row < height; row++) follow(row * wide, 1, wide);
    for (let column = 1; column <= wide; column++) follow(tile.length - column, -wide, height);
    lost.forEach((factor, i) => (tile[i] /= factor));
  }
}

// For each layer a matrix [rows, padded columns]: of conductances, positive minus negative array
// and the mean over copies, which are read in parallel; or of weights, in software. A test gives
// conductances.
function matricesOf(net, chip) {
  return facts.layers.map(({ rows, columns }, l) => {
    const wide = padded(columns), matrix = new Float32Array(rows * wide);
    const add = (values, from, factor) => values.forEach((value, i) => {
      matrix[Math.floor(i / from) * wide + ((i % from) % columns)] += factor * value;
    });
    if (chip.given || chip.software) add((chip.given ? given : weights)[net][l], columns, 1);
    else for (const a of [0, 1]) {
      const array = devicesOf(net, l, a, chip);
      if (chip.wires) throughWires(array.devices, array.wide);
      add(array.devices, array.wide, (1 - 2 * a) / array.copies);
    }
    return matrix;
  });
}

// What a tile of the first array of the second layer shows, [lines, columns]: 0 idle, 255 stuck,
// else 1 + share of the range.
function tileOf(net, chip) {
  const { devices, stuck, wide } = devicesOf(net, 1, 0, chip);
  const tile = new Uint8Array(facts.tile ** 2);
  const put = (i, value) => (tile[Math.floor(i / wide) * facts.tile + (i % wide)] = value);
  devices.subarray(0, facts.tile * wide).forEach((g, i) => put(i, 1 + (250 * g) / facts.high));
  for (const i of stuck) if (i < facts.tile * wide) put(i, 255);
  return tile;
}

// ---- a chip's answer ----

// The ADC's range for the currents of a tile is the largest magnitude up to the next power of two
// (`adc`); this is the exponent of its step.
function exponentOf(largest) {
  return Math.ceil(Math.fround(Math.log2(Math.fround(largest + 1e-12)))) + 1 - facts.bits;
}

// The currents of layer l under voltages in `places.x`, summed over tiles, to `places.sums`
// [places, padded columns]. Rows before `first` have no voltage; in software no ADC reads.
function sumCurrents(l, first, software) {
  const { columns, channels, side, size, out } = facts.layers[l], wide = 4 * padded(columns);
  const count = out ** 2, cells = channels * size ** 2;
  const bound = software ? 0 : 2 ** (facts.bits - 1);
  floats(places.sums, count * padded(columns)).fill(0);
  for (let row = 0; row < cells; row += facts.tile) { // a tile's conductances stay in the cache
    const from = places.cells[l] + 4 * row, to = from + 4 * Math.min(facts.tile, cells - row);
    const g = places.g[l] + (first + row) * wide;
    for (let place = 0, sums = places.sums; place < count; place++, sums += wide) {
      const corner = 4 * channels * (Math.floor(place / out) * side + (place % out));
      const largest = mac(places.x + corner, from, to, g, wide, places.out);
      if (largest) adc(places.out, places.out + wide, sums, exponentOf(largest), bound);
    }
  }
}

// The outputs of layer l from its currents, to `places.x` [places, columns]: the largest of four
// places where it is pooled, then the scale restored, the bias, ReLU but in the last layer.
function activateLayer(l, factor) {
  const { columns, out, pool } = facts.layers[l], wide = 4 * padded(columns);
  const least = l < facts.layers.length - 1 ? 0 : -Infinity, bias = places.bias[l];
  const step = pool ? 2 : 1, across = pool ? wide : 0, down = out * across;
  let x = places.x;
  for (let line = 0; line < out; line += step) {
    for (let place = line * out; place < (line + 1) * out; place += step, x += 4 * columns) {
      activate(places.sums + place * wide, across, down, x, x + wide, bias, factor, least);
    }
  }
}

// Logits of a network on a chip for one grey image of bytes, painted red or green.
function logitsOf(net, chip, image, red) {
  const matrices = remembered(chips, [net, chip], matricesOf);
  const { largest, bias } = facts.networks[net];
  if (loaded !== matrices) {
    matrices.forEach((g, l) => floats(places.g[l], g.length).set(g));
    bias.forEach((values, l) => floats(places.bias[l], values.length).set(values));
    loaded = matrices;
  }
  const pixels = floats(places.x, image.length);
  for (let i = 0; i < image.length; i++) pixels[i] = image[i] / 255;
  facts.layers.forEach((layer, l) => {
    let most = 0, factor = 1;
    if (!chip.software) { // `InputScale`: the largest input gets the full voltage
      const x = floats(places.x, layer.channels * layer.side ** 2);
      for (let i = 0; i < x.length; i++) most = Math.max(most, x[i]);
      const scale = Math.fround((most || 1) / Math.fround(facts.volts));
      for (let i = 0; i < x.length; i++) x[i] /= scale;
      factor = (scale * largest[l]) / (facts.high - facts.low);
    }
    sumCurrents(l, l || red ? 0 : layer.size ** 2, chip.software);
    activateLayer(l, factor);
  });
  return [...floats(places.x, facts.layers.at(-1).columns)];
}

// ---- what the page asks ----

function start(message) {
  ({ facts, digits } = message);
  const { planes } = message, count = planes.length / 3;
  let at = 0, bytes = 0;
  weights = facts.networks.map(({ largest }) => facts.layers.map((layer, l) => (
    new Float32Array(layer.rows * layer.columns).map(() => {
      const code = planes[at] | (planes[count + at] << 8) | (planes[2 * count + at++] << 16);
      return ((code - facts.levels) * largest[l]) / facts.levels;
    }))));
  const take = (length) => (bytes += 4 * length) - 4 * length;
  const each = (floatsOf) => facts.layers.map((layer) => take(floatsOf(layer)));
  const most = (floatsOf) => take(Math.max(...facts.layers.map(floatsOf)));
  places = {
    g: each(({ rows, columns }) => rows * padded(columns)),
    bias: each(({ columns }) => padded(columns)),
    sums: most(({ columns, out }) => padded(columns) * out ** 2),
    out: most(({ columns }) => padded(columns) + 2 * facts.tile),
    cells: each(({ channels, size }) => channels * size ** 2),
    x: most(({ channels, side }) => channels * side ** 2),
  };
  memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 2 ** 16) });
  const module = new WebAssembly.Module(Uint8Array.from(facts.kernel));
  ({ mac, adc, activate } = new WebAssembly.Instance(module, { m: { m: memory } }).exports);
  facts.layers.forEach(({ channels, side, size }, l) => { // a cell's voltage, from the corner on
    const cells = new Uint32Array(memory.buffer, places.cells[l], channels * size ** 2);
    cells.forEach((_, cell) => {
      const line = Math.floor(cell / size), channel = Math.floor(line / size);
      cells[cell] = 4 * (channel + channels * ((line % size) * side + (cell % size)));
    });
  });
}

// Logits of every network for every image, in red and in green.
function answers({ chip, images }) {
  return facts.networks.map((_, net) => images.map((image) => (
    [true, false].map((red) => [...logitsOf(net, chip, image, red)]))));
}

// How many of the digits `from` to `to` a network on a chip calls by their label.
function countRight({ net, chip, from, to, swapped, average }) {
  let right = 0;
  for (let i = from; i < to; i++) {
    const image = digits.subarray(784 * i, 784 * (i + 1));
    const colours = average ? [true, false] : [facts.red[i] !== swapped];
    const answers = colours.map((red) => logitsOf(net, chip, image, red));
    const share = answers.reduce((sum, [zero, one]) => sum + 1 / (1 + Math.exp(zero - one)), 0);
    right += Number(share > answers.length / 2) === facts.labels[i];
  }
  return right;
}

onmessage = ({ data, ports }) => {
  if (data.facts) start(data);
  if (data.given) ({ given } = data);
  if (data.images) ports[0].postMessage({ answers: answers(data), tile: tileOf(2, data.chip) });
  if (data.point) postMessage({ ...data, right: countRight(data) });
};
