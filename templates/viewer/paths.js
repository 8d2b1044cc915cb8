// Which edges are in color: those of the selected box, of one value's way, or between two nodes.

/** @typedef {Map<number, Set<number>>} Lit readers by producing node */

/** The edges into and out of some nodes, without those among them. */
function edgesAround(/** @type {Graph} */ graph, /** @type {number[]} */ nodes) {
  const inside = new Set(nodes);
  /** @type {Lit} */ const lit = new Map();
  for (const node of nodes) {
    const readers = graph.consumers[node].filter((each) => !inside.has(each));
    if (readers.length) lit.set(node, new Set(readers));
    for (const source of graph.producers[node]) {
      if (!inside.has(source)) lit.set(source, (lit.get(source) ?? new Set()).add(node));
    }
  }
  return lit;
}

/** Every edge among `nodes`. */
function edgesAmong(/** @type {Graph} */ graph, /** @type {Set<number>} */ nodes) {
  /** @type {Lit} */ const lit = new Map();
  for (const node of nodes) {
    const readers = graph.consumers[node].filter((each) => nodes.has(each));
    if (readers.length) lit.set(node, new Set(readers));
  }
  return lit;
}

/** Nodes on some way from `start` to `end`, or from `end` to `start`; empty if there is none. */
function nodesBetween(/** @type {Graph} */ graph, /** @type {number} */ start, /** @type {number} */ end) {
  for (const [a, b] of [
    [start, end],
    [end, start],
  ]) {
    const after = graph.reach(a, graph.consumers);
    if (!after.has(b)) continue;
    const before = graph.reach(b, graph.producers);
    return new Set([...after].filter((each) => before.has(each)));
  }
  return new Set();
}
