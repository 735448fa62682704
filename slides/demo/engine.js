// The worker: three networks on simulated memristors, as sections 6 and 7 of the notebook define
// them. `facts` holds the hardware, the layers and the networks; see build.py.
"use strict";

// `mac` is the inner loop; it works in `memory`, where `places` says what lies where, in bytes, and
// `loaded` which matrices those are. Then what was computed before, by what it was made from.
let facts, digits, weights, given, mac, memory, places, loaded;
const plans = new Map(), orders = new Map(), chips = new Map();

// ---- chips: { seed, rate, copies, wires }, or { software: true }, or { given: a number } ----

const padded = (columns) => Math.ceil(columns / facts.block) * facts.block;

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

// The ADC on the columns of one tile, in place: its range is the largest magnitude up to the next
// power of two (`adc`).
function convert(currents, columns) {
  let largest = 0;
  for (let c = 0; c < columns; c++) largest = Math.max(largest, Math.abs(currents[c]));
  if (largest === 0) return;
  const exponent = Math.ceil(Math.fround(Math.log2(Math.fround(largest + 1e-12))));
  const bound = 2 ** (facts.bits - 1), step = 2 ** exponent / bound;
  for (let c = 0; c < columns; c++) {
    const code = Math.floor(Math.fround(currents[c] / step + 0.5));
    currents[c] = Math.min(Math.max(code, -bound), bound - 1) * step;
  }
}

// The voltages of every place [places, cells], cells in the order of PyTorch's weights.
function unfold(x, { channels, side, size, out }, scale, v) {
  for (let place = 0, i = 0; place < out * out; place++) {
    const corner = Math.floor(place / out) * side + (place % out);
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < size; y++) {
        const start = (c * side + y) * side + corner;
        for (let k = start; k < start + size; k++) v[i++] = x[k] / scale;
      }
    }
  }
}

// The currents of layer l [places, columns], summed over tiles, under inputs x in volts x scale.
// Rows before `first` have no voltage; in software no ADC reads.
function currentsOf(l, x, scale, first, software) {
  const layer = facts.layers[l], { columns } = layer, wide = padded(columns);
  const count = layer.out ** 2, cells = layer.channels * layer.size ** 2;
  const sums = new Float32Array(count * columns);
  const tile = new Float32Array(memory.buffer, places.out, wide);
  unfold(x, layer, scale, new Float32Array(memory.buffer, places.v, count * cells));
  for (let row = 0; row < cells; row += facts.tile) { // a tile's conductances stay in the cache
    for (let place = 0; place < count; place++) {
      for (let c = 0; c < wide; c += facts.block) {
        mac(places.v + 4 * (place * cells + row), places.g[l] + 4 * ((first + row) * wide + c),
          places.out + 4 * c, Math.min(facts.tile, cells - row), 4 * wide);
      }
      if (!software) convert(tile, columns);
      for (let c = 0; c < columns; c++) sums[place * columns + c] += tile[c];
    }
  }
  return sums;
}

// Currents [places, columns] -> outputs [columns, places], the largest of four places where the
// layer is pooled; then the scale restored, the bias, ReLU but in the last layer.
function outputsOf(l, sums, factor, bias) {
  const { columns, out, pool } = facts.layers[l], side = pool ? out / 2 : out;
  const least = l < facts.layers.length - 1 ? 0 : -Infinity;
  const x = new Float32Array(columns * side * side);
  const across = pool ? columns : 0, down = pool ? out * columns : 0, step = pool ? 2 : 1;
  for (let place = 0; place < side * side; place++) {
    const corner = step * (Math.floor(place / side) * out + (place % side)) * columns;
    for (let column = 0; column < columns; column++) {
      const at = corner + column, upper = Math.max(sums[at], sums[at + across]);
      const most = Math.max(upper, sums[at + down], sums[at + down + across]);
      x[column * side * side + place] = Math.max(least, most * factor + bias[column]);
    }
  }
  return x;
}

// Logits of a network on a chip for one grey image of bytes, painted red or green.
function logitsOf(net, chip, image, red) {
  const matrices = remembered(chips, [net, chip], matricesOf);
  if (loaded !== matrices) {
    matrices.forEach((g, l) => new Float32Array(memory.buffer, places.g[l], g.length).set(g));
    loaded = matrices;
  }
  let x = new Float32Array(image).map((byte) => byte / 255);
  facts.layers.forEach((layer, l) => {
    const { largest, bias } = facts.networks[net];
    let most = 0, scale = 1, factor = 1;
    if (!chip.software) { // `InputScale`: the largest input gets the full voltage
      for (const value of x) most = Math.max(most, value);
      scale = Math.fround((most || 1) / Math.fround(facts.volts));
      factor = (scale * largest[l]) / (facts.high - facts.low);
    }
    const sums = currentsOf(l, x, scale, l || red ? 0 : layer.size ** 2, chip.software);
    x = outputsOf(l, sums, factor, bias[l]);
  });
  return x;
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
  const take = (floats) => (bytes += 4 * floats) - 4 * floats;
  places = { g: facts.layers.map((layer) => take(layer.rows * padded(layer.columns))) };
  places.out = take(Math.max(...facts.layers.map((layer) => padded(layer.columns))));
  places.v = take(Math.max(...facts.layers.map((layer) => layer.rows * layer.out ** 2)));
  memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 2 ** 16) });
  const module = new WebAssembly.Module(Uint8Array.from(facts.kernel)); // see kernel.py
  mac = new WebAssembly.Instance(module, { m: { m: memory } }).exports.f;
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
