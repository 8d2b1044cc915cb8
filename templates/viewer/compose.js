// The place of every box: each cluster has a layout of its own, made when the report was built.
// An open cluster grows; in its rank the others keep their order and move apart, and the ranks
// after it move on, so that a reader finds everything where it was.

const BOX = 36; // height of a box
const LETTER = 6.1; // width of a letter of a title
const HEADER = 26; // of an open cluster
const STRIP = 17; // for the names of values that come from far away
const SIDE = 14;
const SIDEWAYS_GAP = 76; // between ranks, with room for a shape
const NEAR = 16; // least distance of neighbors in a rank

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{x: number, y: number, width: number, height: number}} Box
 * @typedef {{kind: string, key: number, x: number, y: number, width: number, height: number,
 *   inner: Composed | null, names: number[]}} Item
 * @typedef {{source: number, producer: number, reader: number, points: Point[], arrow: boolean,
 *   first: boolean, count: number}} Flow
 * @typedef {{cluster: number, width: number, height: number, items: Item[], flows: Flow[],
 *   ins: Map<number, number>, outs: Map<number, number>}} Composed
 * @typedef {{place: number, size: number, item: number, weight: number, at: number,
 *   before: Slot[], after: Slot[]}} Slot
 */

class Composer {
  constructor(/** @type {Clusters} */ clusters, /** @type {Set<number>} */ open, /** @type {boolean} */ sideways) {
    this.clusters = clusters;
    this.open = open;
    this.sideways = sideways; // left to right instead of top down
    /** @type {Map<number, Composed>} */ this.known = new Map();
  }

  /** Call when a cluster was opened or closed: only it and those around it change. */
  forget(/** @type {number} */ cluster) {
    for (const each of this.clusters.chain(cluster)) this.known.delete(each);
  }

  compose(cluster = 0) {
    const known = this.known.get(cluster);
    if (known) return known;
    const made = this.#place(cluster);
    this.known.set(cluster, made);
    return made;
  }

  #place(/** @type {number} */ cluster) {
    const drawing = this.clusters.drawing(cluster);
    const items = this.#items(cluster, drawing);
    const across = (/** @type {Item} */ item) => (this.sideways ? item.height : item.width);
    const along = (/** @type {Item} */ item) => (this.sideways ? item.width : item.height);
    const { rows, slots, lanes } = this.#slots(drawing, items.map(across));
    for (const row of rows) spread(row, (slot) => slot.place);
    // dot has placed the closed boxes, top down
    straighten(rows, this.sideways || items.some((item) => item.inner) ? 2 : 0);
    const all = rows.flat();
    const least = Math.min(...all.map((slot) => slot.at - slot.size / 2), 0);
    const most = Math.max(...all.map((slot) => slot.at + slot.size / 2), 0);

    const isRoot = cluster === 0;
    const padding = isRoot ? 4 : SIDE;
    const header = isRoot ? 4 : HEADER;
    const offset = (this.sideways ? header : padding) - least;
    const gap = this.sideways ? SIDEWAYS_GAP : 30;
    let end = this.sideways ? padding : header;
    const bands = rows.map((row) => {
      const boxes = row.filter((slot) => slot.item >= 0 && !isPort(items[slot.item]));
      const size = Math.max(0, ...boxes.map((slot) => along(items[slot.item])));
      const onlyPorts = size === 0;
      const start = end;
      end = onlyPorts ? start : start + size + gap;
      return { start, end: start + size, onlyPorts };
    });
    const last = Math.max(0, ...bands.filter((band) => !band.onlyPorts).map((band) => band.end));
    const length = last + (this.sideways ? padding : isRoot ? 4 : 12);
    const breadth = most - least + (this.sideways ? header + (isRoot ? 4 : 12) : 2 * padding);
    const title = Math.min(200, this.clusters.names[cluster].length * LETTER + 48);
    const width = Math.max(this.sideways ? length : breadth, isRoot ? 0 : title);
    const height = this.sideways ? breadth : length;

    items.forEach((item, place) => {
      const band = bands[drawing.ranks[place]];
      const middle = slots[place].at + offset;
      let start = band.start + (band.end - band.start - along(item)) / 2;
      if (item.kind === "i") start = 0;
      if (item.kind === "o") start = this.sideways ? width : height;
      item.x = this.sideways ? start : middle - item.width / 2;
      item.y = this.sideways ? middle - item.height / 2 : start;
    });
    const flows = this.#flows(cluster, drawing, items, bands, lanes, offset);
    const ports = (/** @type {string} */ kind) =>
      new Map(items.flatMap((item, place) => (item.kind === kind ? [[item.key, slots[place].at + offset]] : [])));
    return { cluster, width, height, items, flows, ins: ports("i"), outs: ports("o") };
  }

  /** @returns {Item[]} */
  #items(/** @type {number} */ cluster, /** @type {Drawing} */ drawing) {
    const { children, incoming, outgoing, valueSources } = this.clusters;
    const keys = [...children[cluster].map((child, place) => (drawing.kinds[place] === "c" ? -child : child))];
    const ins = incoming[cluster].values();
    const outs = outgoing[cluster].values();
    const items = [...drawing.kinds].map((kind, place) => {
      const key = Number(kind === "i" ? ins.next().value : kind === "o" ? outs.next().value : keys[place]);
      const isBox = kind === "n" || kind === "c";
      const inner = kind === "c" && this.open.has(key) ? this.compose(key) : null;
      return /** @type {Item} */ ({
        kind,
        key,
        x: 0,
        y: 0,
        inner,
        names: [],
        width: inner ? inner.width : drawing.widths[place],
        height: inner ? inner.height : isBox ? BOX : 0,
      });
    });
    for (let n = 0; n < drawing.named.length; n += 2) {
      items[drawing.named[n + 1]].names.push(valueSources[cluster][drawing.named[n]]);
    }
    for (const item of items) if (item.names.length) item.height += STRIP;
    return items;
  }

  /** The boxes of each rank and the lanes of the edges that pass it, in their order. */
  #slots(/** @type {Drawing} */ drawing, /** @type {number[]} */ sizes) {
    const factor = this.sideways ? 0.6 : 1;
    /** @type {Slot[][]} */
    const rows = Array.from({ length: Math.max(-1, ...drawing.ranks) + 1 }, () => []);
    const make = (
      /** @type {number} */ rank,
      /** @type {number} */ place,
      /** @type {number} */ size,
      item = -1,
    ) => {
      const slot = { place: place * factor, size, item, weight: item < 0 ? 4 : 1, at: 0, before: [], after: [] };
      rows[rank].push(slot);
      return slot;
    };
    const slots = drawing.ranks.map((rank, item) => make(rank, drawing.places[item], sizes[item], item));
    /** @type {Map<string, Slot>} */ const shared = new Map();
    const lanes = drawing.edges.map(([value, reader, ...crossings]) => {
      const producer = drawing.producers[value];
      const first = Math.min(drawing.ranks[producer], drawing.ranks[reader]);
      const lane = crossings.map((place, step) => {
        const key = `${value} ${first + 1 + step} ${place}`;
        const slot = shared.get(key) ?? make(first + 1 + step, place, 4);
        shared.set(key, slot);
        return slot;
      });
      if (drawing.ranks[producer] > drawing.ranks[reader]) lane.reverse();
      const path = [slots[producer], ...lane, slots[reader]];
      for (let n = 1; n < path.length; n += 1) {
        path[n - 1].after.push(path[n]);
        path[n].before.push(path[n - 1]);
      }
      return lane;
    });
    for (const row of rows) row.sort((a, b) => a.place - b.place || a.item - b.item);
    return { rows, slots, lanes };
  }

  /** @returns {Flow[]} */
  #flows(
    /** @type {number} */ cluster,
    /** @type {Drawing} */ drawing,
    /** @type {Item[]} */ items,
    /** @type {{start: number, end: number}[]} */ bands,
    /** @type {Slot[][]} */ lanes,
    /** @type {number} */ offset,
  ) {
    const point = (/** @type {number} */ a, /** @type {number} */ c) =>
      this.sideways ? { x: a, y: c } : { x: c, y: a };
    const sources = this.clusters.valueSources[cluster];
    /** @type {Map<string, Flow>} */ const merged = new Map();
    /** @type {Map<number, Flow[]>} */ const arriving = new Map();
    const labeled = new Set();
    const flows = [];
    for (const [edge, [value, reader]] of drawing.edges.entries()) {
      const producer = drawing.producers[value];
      const [from, to, source] = [items[producer], items[reader], sources[value]];
      const key = `${producer} ${reader} ${to.inner || from.inner ? source : ""}`;
      const same = merged.get(key);
      if (same) {
        same.count += 1;
        continue;
      }
      const end = this.sideways ? from.x + from.width : from.y + from.height;
      const starting = from.kind === "i" ? 0 : end;
      const exit = this.#port(from, from.inner?.outs.get(source));
      const enter = this.#port(to, to.inner?.ins.get(source));
      const points = [point(starting, exit)];
      const back = drawing.ranks[producer] > drawing.ranks[reader];
      if (from.kind !== "i") points.push(point(bands[drawing.ranks[producer]].end, exit));
      lanes[edge].forEach((slot, step) => {
        const band = bands[drawing.ranks[producer] + (back ? -1 - step : 1 + step)];
        points.push(point(back ? band.end : band.start, slot.at + offset));
        points.push(point(back ? band.start : band.end, slot.at + offset));
      });
      const top = this.sideways ? to.x : to.y + (to.names.length ? STRIP : 0);
      if (to.kind !== "o") points.push(point(bands[drawing.ranks[reader]].start, enter));
      points.push(point(top, enter));
      const arrow = to.kind !== "o" && !to.inner;
      const flow = { source, producer, reader, points, arrow, first: !labeled.has(source), count: 1 };
      labeled.add(source);
      merged.set(key, flow);
      flows.push(flow);
      if (arrow) arriving.set(reader, [...(arriving.get(reader) ?? []), flow]);
    }
    for (const [reader, group] of arriving) this.#fanIn(items[reader], group);
    return flows;
  }

  /** Where a value enters or leaves: the port of an open cluster, else the middle of the box. */
  #port(/** @type {Item} */ item, /** @type {number | undefined} */ port) {
    const strip = item.names.length ? STRIP : 0;
    if (this.sideways) return port === undefined ? item.y + (item.height + strip) / 2 : item.y + strip + port;
    return port === undefined ? item.x + item.width / 2 : item.x + port;
  }

  /** Edges that end at one box end side by side, in the order in which they arrive. */
  #fanIn(/** @type {Item} */ item, /** @type {Flow[]} */ group) {
    if (group.length < 2) return;
    const axis = this.sideways ? "y" : "x";
    const size = this.sideways ? BOX : item.width;
    const step = Math.min(14, (size * 0.7) / (group.length - 1));
    const before = (/** @type {Flow} */ flow) => flow.points[Math.max(0, flow.points.length - 3)][axis];
    [...group]
      .sort((a, b) => before(a) - before(b))
      .forEach((flow, n) => {
        for (const end of flow.points.slice(-2)) end[axis] += (n - (group.length - 1) / 2) * step;
      });
  }
}

function isPort(/** @type {Item} */ item) {
  return item.kind === "i" || item.kind === "o";
}

/**
 * Put the slots of a rank as close to their wanted places as their order and sizes allow.
 *
 * Least squares under a chain of distances is isotonic regression: pool adjacent violators.
 */
function spread(/** @type {Slot[]} */ row, /** @type {(slot: Slot) => number} */ wanted) {
  /** @type {{sum: number, weight: number, from: number}[]} */ const pools = [];
  const offsets = [0];
  row.forEach((slot, n) => {
    if (n > 0) offsets.push(offsets[n - 1] + distance(row[n - 1], slot));
    let pool = { sum: (wanted(slot) - offsets[n]) * slot.weight, weight: slot.weight, from: n };
    while (pools.length) {
      const before = pools[pools.length - 1];
      if (before.sum / before.weight <= pool.sum / pool.weight) break;
      pools.pop();
      pool = { sum: before.sum + pool.sum, weight: before.weight + pool.weight, from: before.from };
    }
    pools.push(pool);
  });
  pools.forEach((pool, n) => {
    const end = n + 1 < pools.length ? pools[n + 1].from : row.length;
    for (let each = pool.from; each < end; each += 1) row[each].at = pool.sum / pool.weight + offsets[each];
  });
}

/**
 * Line up what is connected: boxes and lanes that follow each other alone form a line, and lines
 * keep their distances.
 */
function straighten(/** @type {Slot[][]} */ rows, /** @type {number} */ sweeps) {
  const mean = (/** @type {Slot[]} */ slots) => slots.reduce((sum, slot) => sum + slot.at, 0) / slots.length;
  for (let round = 0; round < sweeps; round += 1) {
    for (const row of rows) spread(row, (slot) => (slot.before.length ? mean(slot.before) : slot.at));
    for (const row of [...rows].reverse()) spread(row, (slot) => (slot.after.length ? mean(slot.after) : slot.at));
  }
  /** @type {Map<Slot, {at: number, slots: Slot[]}>} */ const lines = new Map();
  for (const row of rows) {
    for (const slot of row) {
      const [above] = slot.before;
      const follows = slot.before.length === 1 && above.after.length === 1 && lines.has(above);
      const line = follows ? lines.get(above) : { at: 0, slots: [] };
      line?.slots.push(slot);
      lines.set(slot, /** @type {{at: number, slots: Slot[]}} */ (line));
    }
  }
  for (const line of lines.values()) line.at = mean(line.slots);
  for (let round = 0; round < 30; round += 1) {
    let most = 0;
    for (const row of rows) {
      for (let n = 1; n < row.length; n += 1) {
        const [a, b] = [lines.get(row[n - 1]), lines.get(row[n])];
        if (!a || !b) continue;
        const lacking = distance(row[n - 1], row[n]) - (b.at - a.at);
        if (lacking <= 0) continue;
        const share = b.slots.length / (a.slots.length + b.slots.length); // a longer line moves less
        a.at -= lacking * share;
        b.at += lacking * (1 - share);
        most = Math.max(most, lacking);
      }
    }
    if (most < 0.5) break;
  }
  for (const row of rows) spread(row, (slot) => lines.get(slot)?.at ?? slot.at);
}

/** Least distance of two neighbors in a rank, from middle to middle. */
function distance(/** @type {Slot} */ left, /** @type {Slot} */ right) {
  return (left.size + right.size) / 2 + (left.item < 0 && right.item < 0 ? 8 : NEAR);
}
