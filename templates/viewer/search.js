// Search by name, type, operator, shape and attribute: every word must be somewhere in a node.

class Search {
  /**
   * @param {Graph} graph
   * @param {Clusters} clusters
   */
  constructor(graph, clusters) {
    this.graph = graph;
    this.clusters = clusters;
    /** @type {string[]} */
    this.clusterTexts = clusters.ids.map((id) => `${id} ${graph.typeOfModule(id)}`.toLowerCase());
  }

  /** Ids of items, in execution order; clusters before the nodes inside. */
  find(/** @type {string} */ query) {
    const words = query
      .toLowerCase()
      .replace(/(\d)\s*[x*]\s*(?=\d)/g, "$1×")
      .split(/\s+/)
      .filter(Boolean);
    if (!words.length) return [];
    const matches = (/** @type {string} */ text) => words.every((word) => text.includes(word));
    /** @type {[number, string][]} */ const found = [];
    this.graph.texts.forEach((text, node) => {
      if (this.clusters.homes.has(node) && matches(text)) found.push([node, `n${node}`]);
    });
    // a cluster is found by its own name only: its content has the name in front
    this.clusterTexts.forEach((text, cluster) => {
      const name = text.split(".").pop() ?? "";
      if (cluster > 0 && matches(text) && words.some((word) => name.includes(word) || text === word)) {
        found.push([Math.min(...this.clusters.nodes(cluster)) - 0.5, `c${cluster}`]);
      }
    });
    return found.sort((a, b) => a[0] - b[0]).map(([, id]) => id);
  }
}
