// What the color of a box means: the kind of its operator, or one figure from white to full.

/** @type {[string, string][]} categories and the words in the names of their operators */
const CATEGORY_WORDS = [
  ["convolution", "conv"],
  ["matrix product", "linear|gemm|matmul|addmm|bmm|attention|einsum|^mm|lstm|gru|rnn"],
  ["normalization", "norm"],
  ["activation", "relu|gelu|silu|sigmoid|tanh|softmax|swish|elu|erf|mish|softplus|clip|hardt"],
  ["pooling", "pool|reduce|mean|argmax|topk"],
  [
    "elementwise",
    "^_?i?(add|mul|sub|div|true_?div|rsub|pow|sqrt|rsqrt|neg|exp|log|abs|sum|min|max|where|less|" +
      "greater|equal|and|or|not|masked_fill|sin|cos)",
  ],
  ["embedding", "embedding|gather|index"],
  [
    "shape",
    "reshape|view|flatten|transpose|permute|squeeze|concat|cat|split|slice|expand|pad|shape|chunk|^t$|" +
      "tile|resize|upsample|getitem|unbind|select|stack|contiguous|cast|^to$|identity|clone",
  ],
  ["quantization", "quant"],
  ["control flow", "^(if|loop|scan)$"],
];
/** @type {[string, RegExp][]} */
const CATEGORIES = CATEGORY_WORDS.map(([name, words]) => [name, new RegExp(words, "i")]);

/** The CSS class of a category. */
function kindClass(/** @type {string} */ name) {
  return `k-${name.replace(" ", "-")}`;
}

function category(/** @type {GraphNode} */ node) {
  if (node.kind === "input" || node.kind === "output" || node.kind === "parameter" || node.kind === "constant")
    return node.kind;
  const name = node.operator.split(".").pop() ?? "";
  if (/quant/i.test(name)) return "quantization";
  return CATEGORIES.find(([, pattern]) => pattern.test(name))?.[0] ?? "other";
}

/** @type {Record<string, [string, string]>} */
const FIGURE_NAMES = {
  parameters: ["Parameters", ""],
  macs: ["MACs", ""],
  bytes: ["Output bytes", "B"],
};

/**
 * @typedef {object} Figure
 * @property {string} label
 * @property {string} unit
 * @property {(number | null)[]} values of the nodes
 * @property {number} total of all nodes; 0 where some are not known
 * @property {boolean} logarithmic values differ by orders of magnitude
 * @property {Record<string, number>} byModule values of modules that are clusters
 */

/** The figures of a graph's nodes and clusters. */
class Figures {
  constructor(
    /** @type {Graph} */ graph,
    /** @type {Record<string, {label: string, unit: string, logarithmic: boolean, values: Record<string, number>}>} */
    measured,
  ) {
    this.graph = graph;
    /** @type {Map<string, Figure>} */ this.all = new Map();
    for (const [key, values] of Object.entries({ ...this.#ofModules(), ...graph.figures })) {
      const [label, unit] = FIGURE_NAMES[key] ?? [key, ""];
      const sum = values.reduce((/** @type {number} */ sum, value) => sum + (value ?? 0), 0);
      if (!sum) continue;
      // results of unknown size have bytes too, so a share of the others would say nothing
      const isKnown = (/** @type {GraphNode} */ { index, kind }) => !hasResult(kind) || values[index] !== null;
      // of two reports in one graph there is no whole
      const isWhole = !graph.marks.length && (key !== "bytes" || graph.nodes.every(isKnown));
      this.all.set(key, { label, unit, values, total: isWhole ? sum : 0, byModule: {}, logarithmic: false });
    }
    for (const [key, { values, ...figure }] of Object.entries(measured)) {
      this.all.set(key, { ...figure, values: this.#atNodes(values), total: 0, byModule: values });
    }
  }

  /** A module that is a cluster has its value there, another one at its first node. */
  #atNodes(/** @type {Record<string, number>} */ values) {
    const complete = this.graph.layouts[this.graph.layouts.length - 1];
    const seen = new Set(complete.ids);
    return this.graph.nodes.map(({ index, id, module }) => {
      const own = values[id] ?? values[this.graph.fileNames[index] || id];
      if (own !== undefined) return own;
      if (values[module] === undefined || seen.has(module)) return null;
      seen.add(module);
      return values[module];
    });
  }

  /** Of the module graph: the own figures of each module, at its first node. */
  #ofModules() {
    const { graph } = this;
    if (graph.name !== "modules")
      return {
        parameters: graph.nodes.map((node) => (node.kind === "parameter" ? elements(node.outputs[0] ?? "") : 0)),
      };
    const seen = new Set();
    /** @type {Record<string, (number | null)[]>} */
    const found = { parameters: [], macs: [] };
    for (const node of graph.nodes) {
      const facts = graph.modules.get(node.module);
      const isFirst =
        (node.kind === "module" || node.kind === "operation") &&
        facts &&
        !facts.sharedWith &&
        !seen.has(node.module);
      if (isFirst) seen.add(node.module);
      found.parameters.push(isFirst ? facts.parameters : null);
      found.macs.push(isFirst ? facts.macs : null);
    }
    return found;
  }

  /** The figure of a node; null if it is unknown. */
  ofNode(/** @type {string} */ key, /** @type {number} */ node) {
    return this.all.get(key)?.values[node] ?? null;
  }

  /** The figure of a cluster, else the sum (of errors the largest) of what is inside; null if unknown. */
  ofCluster(/** @type {string} */ key, /** @type {Clusters} */ clusters, /** @type {number} */ cluster) {
    const figure = this.all.get(key);
    const id = clusters.ids[cluster];
    const own = figure?.byModule[id] ?? figure?.byModule[id.replace(/#\d+$/, "")];
    if (!figure || own !== undefined) return own ?? null;
    /** @type {number | undefined} */ let sum;
    for (const node of clusters.nodes(cluster)) {
      const value = figure.values[node];
      if (value === null || value === undefined) continue;
      sum = figure.logarithmic ? Math.max(sum ?? 0, value) : (sum ?? 0) + value;
    }
    return sum ?? null;
  }
}

/** From figures to shares of the full color. */
class ColorScale {
  constructor(/** @type {(number | null)[]} */ values, /** @type {boolean} */ logarithmic) {
    const known = values.map((value) => value ?? 0).filter((value) => value > 0);
    this.isComplete = values.every((value) => value !== null);
    this.logarithmic = logarithmic;
    this.most = known.reduce((a, b) => Math.max(a, b), 0);
    this.least = logarithmic ? known.reduce((a, b) => Math.min(a, b), this.most) : 0;
  }

  /** From 0 to 1; null for an unknown figure, which is not zero. */
  share(/** @type {number | null} */ value) {
    if (value === null || !this.most) return null;
    if (!this.logarithmic) return Math.sqrt(value / this.most);
    if (value <= 0 || this.least === this.most) return value > 0 ? 1 : 0;
    return Math.max(0.06, Math.log(value / this.least) / Math.log(this.most / this.least));
  }
}

/** Whether a node of this kind makes a value. */
function hasResult(/** @type {string} */ kind) {
  return kind === "operation" || kind === "module";
}

/** The product of the sizes in a shape as text; null if one is unknown. */
function elements(/** @type {string} */ shape) {
  const sizes = (shape.split(" ").pop() ?? "").split("×").map(Number);
  return sizes.every(Number.isFinite) ? sizes.reduce((product, size) => product * size, 1) : null;
}
