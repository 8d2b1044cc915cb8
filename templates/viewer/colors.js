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

/** The figures of a graph's nodes, summed over clusters. */
class Figures {
  constructor(
    /** @type {Graph} */ graph,
    /** @type {Record<string, {label: string, unit: string, values: Record<string, number>}>} */ measured,
  ) {
    this.graph = graph;
    /** @type {Map<string, {label: string, unit: string, values: (number | null)[], total: number}>} */
    this.all = new Map();
    for (const [key, values] of Object.entries({ ...this.#ofModules(), ...graph.figures })) {
      const [label, unit] = FIGURE_NAMES[key] ?? [key, ""];
      this.#add(key, label, unit, values);
    }
    for (const [key, { label, unit, values }] of Object.entries(measured)) {
      const seen = new Set();
      this.#add(
        key,
        label,
        unit,
        graph.nodes.map((node) => {
          const known = values[node.module];
          if (known === undefined || seen.has(node.module)) return null;
          seen.add(node.module);
          return known;
        }),
      );
    }
  }

  /** Of the module graph: the own figures of each module, at its first node. */
  #ofModules() {
    const { graph } = this;
    if (graph.name !== "modules")
      return {
        parameters: graph.nodes.map((node) => (node.kind === "parameter" ? elements(node.outputs[0] ?? "") : null)),
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

  #add(
    /** @type {string} */ key,
    /** @type {string} */ label,
    /** @type {string} */ unit,
    /** @type {(number | null)[]} */ values,
  ) {
    const total = values.reduce((/** @type {number} */ sum, value) => sum + (value ?? 0), 0);
    if (total > 0) this.all.set(key, { label, unit, values, total });
  }

  /** The figure of a node or the sum of a cluster; null if it is unknown. */
  of(/** @type {string} */ key, /** @type {number[]} */ nodes) {
    const figure = this.all.get(key);
    if (!figure) return null;
    let sum = null;
    for (const node of nodes) {
      const value = figure.values[node];
      if (value !== null && value !== undefined) sum = (sum ?? 0) + value;
    }
    return sum;
  }
}

/** The product of the sizes in a shape as text; null if one is unknown. */
function elements(/** @type {string} */ shape) {
  const sizes = (shape.split(" ").pop() ?? "").split("×").map(Number);
  return sizes.every(Number.isFinite) ? sizes.reduce((product, size) => product * size, 1) : null;
}
