// What is remembered of each graph, and which clusters are open when it is first seen.

const FIRST_BOXES = 36; // open at first

/** What is remembered of each graph. */
class GraphState {
  /** @param {Graph} graph */
  constructor(graph) {
    this.graph = graph;
    this.layout = 0;
    this.selected = "";
    this.start = -1; // of a path that waits for its end
    this.sideways = false;
    /** @type {Set<number>[]} */
    this.open = graph.layouts.map((clusters) =>
      graph.marks.length ? openMarked(graph, clusters, FIRST_BOXES * 2) : openUpTo(clusters, FIRST_BOXES),
    );
    /** @type {{x: number, y: number, scale: number} | null} */ this.view = null;
  }
}

/**
 * The clusters to open within about `most` boxes, level by level: a whole level if it fits, else,
 * unless `fill`, the first of each structure as an example of the others.
 */
function openUpTo(/** @type {Clusters} */ clusters, /** @type {number} */ most, root = 0, fill = false) {
  const open = new Set([root, 0]);
  const shown = new Set();
  let count = clusters.boxes(open, root);
  let level = [root];
  while (level.length) {
    const below = level.flatMap((cluster) => clusters.childClusters(cluster));
    const size = (/** @type {number} */ cluster) => clusters.children[cluster].length;
    const fits = count + below.reduce((sum, cluster) => sum + size(cluster), 0) <= most;
    level = [];
    for (const cluster of below) {
      const drawing = clusters.drawingOf[cluster];
      if (count + size(cluster) > most || (!fits && !fill && shown.has(drawing))) continue;
      open.add(cluster);
      shown.add(drawing);
      count += size(cluster);
      level.push(cluster);
    }
  }
  return open;
}

/** The clusters around what changed, as long as about `most` boxes are seen. */
function openMarked(/** @type {Graph} */ graph, /** @type {Clusters} */ clusters, /** @type {number} */ most) {
  const open = new Set([0]);
  let count = clusters.boxes(open);
  graph.marks.forEach((mark, node) => {
    if (!mark) return;
    const closed = clusters.chain(clusters.homes.get(node) ?? 0).filter((cluster) => !open.has(cluster));
    const more = closed.reduce((sum, cluster) => sum + clusters.children[cluster].length, 0);
    if (count + more > most) return;
    count += more;
    for (const cluster of closed) open.add(cluster);
  });
  return open;
}
