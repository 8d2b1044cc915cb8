// The graphs of the page as objects: nodes, what feeds what, and the nested clusters.

/**
 * @typedef {{index: number, id: string, operator: string, kind: string, module: string,
 *   attributes: Record<string, any>, outputs: string[], name: string}} GraphNode
 * @typedef {{kinds: string, widths: number[], ranks: number[], places: number[],
 *   producers: number[], edges: number[][], named: number[]}} Drawing
 * @typedef {{path: string, type: string, parameters: number, macs: number | null, source: string,
 *   call: string, attributes: Record<string, any>, tensors: string[][], sharedWith: string}} ModuleFacts
 * @typedef {{name: string, dtype: string, shape: string, bytes: number, external: string,
 *   statistics: number[], zeros: number | null, bins: string, sampled: boolean}} StoredTensor
 */

/** The clusters of a graph, the whole graph at 0, with or without its constants. */
class Clusters {
  constructor(/** @type {any} */ stored) {
    /** @type {Drawing[]} */
    this.drawings = stored.drawings.map(
      (/** @type {any[]} */ [kinds, widths, ranks, places, producers, edges, named]) => ({
        kinds,
        widths,
        ranks,
        places,
        producers,
        edges,
        named,
      }),
    );
    /** @type {boolean} */ this.complete = stored.complete;
    /** @type {string} */ this.engine = stored.engine;
    /** @type {string[]} */ this.ids = stored.clusterIds;
    /** @type {string[]} */ this.names = stored.clusterNames;
    /** @type {number[]} */ this.drawingOf = stored.drawingOf;
    /** @type {number[][]} */ this.children = sums(stored.children);
    /** @type {string[][]} */ this.childNames = stored.childNames;
    /** @type {number[][]} */ this.incoming = stored.incoming;
    /** @type {number[][]} */ this.outgoing = stored.outgoing;
    /** @type {number[][]} */ this.valueSources = sums(stored.valueSources);
    this.parents = this.ids.map(() => -1);
    /** @type {Map<number, number>} */ this.homes = new Map(); // node -> cluster
    /** @type {Map<number, string>} */ this.nodeNames = new Map();
    this.children.forEach((children, cluster) => {
      const isCluster = this.drawings[this.drawingOf[cluster]].kinds;
      let named = 0;
      children.forEach((child, place) => {
        if (isCluster[place] === "c") this.parents[-child] = cluster;
        else {
          this.homes.set(child, cluster);
          this.nodeNames.set(child, this.childNames[cluster][named]);
          named += 1;
        }
      });
    });
    this.byId = new Map(this.ids.map((id, cluster) => [id, cluster]));
  }

  drawing(/** @type {number} */ cluster) {
    return this.drawings[this.drawingOf[cluster]];
  }

  /** The cluster and those around it, inner ones first. */
  chain(/** @type {number} */ cluster) {
    const found = [];
    for (let each = cluster; each >= 0; each = this.parents[each]) found.push(each);
    return found;
  }

  /** Whether the node is somewhere inside the cluster. */
  holds(/** @type {number} */ cluster, /** @type {number} */ node) {
    let home = this.homes.get(node) ?? -1;
    while (home >= 0 && home !== cluster) home = this.parents[home];
    return home === cluster;
  }

  /** @returns {number[]} every node inside a cluster */
  nodes(/** @type {number} */ cluster) {
    const { kinds } = this.drawing(cluster);
    return this.children[cluster].flatMap((child, place) => (kinds[place] === "c" ? this.nodes(-child) : [child]));
  }

  childClusters(/** @type {number} */ cluster) {
    const { kinds } = this.drawing(cluster);
    return this.children[cluster].flatMap((child, place) => (kinds[place] === "c" ? [-child] : []));
  }

  /** Boxes that are seen when `open` are open. */
  boxes(/** @type {Set<number>} */ open, cluster = 0) {
    const { kinds } = this.drawing(cluster);
    let found = 0;
    this.children[cluster].forEach((child, place) => {
      found += 1;
      if (kinds[place] === "c" && open.has(-child)) found += this.boxes(open, -child);
    });
    return found;
  }
}

class Graph {
  constructor(/** @type {any} */ stored, /** @type {Map<string, ModuleFacts>} */ modules) {
    /** @type {string} */ this.name = stored.name;
    /** @type {Record<string, any>} */ this.attributes = stored.attributes;
    this.modules = stored.facts ? moduleFacts(stored.facts) : modules; // of two reports in one graph
    /** @type {Record<string, string>} */ this.classes = stored.file?.classes ?? {}; // without a module
    /** @type {Clusters[]} */ this.layouts = stored.layouts.map((/** @type {any} */ each) => new Clusters(each));
    const complete = this.layouts[this.layouts.length - 1];
    /** @type {GraphNode[]} */
    this.nodes = stored.ids.map((/** @type {string | 0 | 1} */ id, /** @type {number} */ index) => {
      const [operator, kind, attributes, outputs] = stored.descriptions[stored.descriptionOf[index]];
      const module = stored.modules[stored.moduleOf[index]];
      const name = complete.nodeNames.get(index) ?? "";
      const full = id === 0 ? module : id === 1 ? `${module}/${operator}` : id;
      return { index, id: full, operator, kind, module, attributes, outputs, name };
    });
    this.byId = new Map(this.nodes.map((node) => [node.id, node.index]));
    /** @type {number[][]} */ this.producers = this.nodes.map(() => []);
    /** @type {number[][]} */ this.consumers = this.nodes.map(() => []);
    const [sources] = sums([stored.sources]);
    sources.forEach((source, edge) => {
      const target = source + stored.spans[edge];
      this.producers[target].push(source);
      this.consumers[source].push(target);
    });
    this.constants = this.nodes.length - this.layouts[0].homes.size;
    /** @type {Record<string, (number | null)[]>} */ this.figures = stored.figures ?? {};
    /** @type {string[]} */ this.marks = stored.marks ?? []; // of two reports in one graph
    /** @type {string[][]} */ this.notes = stored.notes ?? [];
    const { file } = stored; // of an ONNX graph
    /** @type {Record<string, string>} */ this.properties = file?.properties ?? {};
    /** @type {string[]} */ this.fileNames = file?.names ?? []; // of the nodes
    /** @type {string[][]} */ this.inputNames = file?.inputs ?? [];
    /** @type {string[][]} */ this.outputNames = file?.outputs ?? [];
    /** @type {Record<string, string[]>} */ this.formalInputs = file?.formal ?? {};
    /** @type {Record<string, number>} */ this.versions = file?.versions ?? {}; // of operators
    /** @type {Map<number, [string, string][]>} */ this.metadata = new Map();
    for (const [node, name, value] of file?.metadata ?? []) {
      this.metadata.set(node, [...(this.metadata.get(node) ?? []), [name, value]]);
    }
    /** @type {Map<string, StoredTensor>} */
    this.tensors = new Map(
      (file?.tensors ?? []).map((/** @type {any[]} */ row) => {
        const [name, dtype, shape, bytes, external, statistics, zeros, bins, sampled] = row;
        return [
          name,
          { name, dtype, shape: shape.join("×") || "scalar", bytes, external, statistics, zeros, bins, sampled },
        ];
      }),
    );
    /** @type {Map<string, number>} */ this.makers = new Map();
    this.outputNames.forEach((names, node) => names.forEach((name) => this.makers.set(name, node)));
    /** @type {Map<string, number>} */
    this.named = new Map(this.fileNames.map((name, node) => [name, node]));
    this.named.delete("");
    /** @type {string[]} */ this.texts = this.nodes.map((node) =>
      [
        node.id,
        node.operator,
        node.name,
        this.typeOfModule(node.module),
        this.fileNames[node.index] ?? "",
        node.outputs.join(" "),
        ...(this.inputNames[node.index] ?? []),
        ...(this.outputNames[node.index] ?? []),
        Object.entries(node.attributes)
          .map(([name, value]) => `${name}=${plain(value)}`)
          .join(" "),
      ]
        .join(" ")
        .toLowerCase(),
    );
  }

  /** The node's place for a reader: its path, or its name in the graph. */
  place(/** @type {number} */ index) {
    const { id, kind, operator, module } = this.nodes[index];
    if (kind === "module") return id;
    if (!module && this.fileNames[index]) return this.fileNames[index];
    const name = ["input", "output", "parameter"].includes(kind) ? id.slice(id.indexOf("/") + 1) : id;
    return name.replace(/^\//, "") || operator;
  }

  /**
   * The nodes of a module and of those inside. Of one that has none, as a convolution that is fused
   * with the normalization after it, the nodes that read its weights.
   */
  nodesOf(/** @type {string} */ module) {
    const inside = `${module}.`;
    const isOwn = (/** @type {string} */ path) => path === module || path.startsWith(inside);
    const own = this.nodes.filter((node) => isOwn(node.module));
    if (own.length || !module) return own;
    const isWeight = (/** @type {string} */ name) => name.startsWith(inside) && this.tensors.has(name);
    return this.nodes.filter((node) => this.inputNames[node.index]?.some(isWeight));
  }

  /**
   * The node that is meant by a name: its id, a module, of a file also its name there, or that of a
   * value that it makes.
   */
  find(/** @type {string} */ name) {
    if (!name) return undefined;
    return this.byId.get(name) ?? this.nodesOf(name)[0]?.index ?? this.named.get(name) ?? this.makers.get(name);
  }

  /** The shape and dtype of a value of a file, by its name; "" if they are unknown. */
  typeOf(/** @type {string} */ name) {
    const maker = this.makers.get(name);
    if (maker === undefined) return "";
    const place = this.outputNames[maker].filter(Boolean).indexOf(name);
    return typed(this.nodes[maker].outputs[place] ?? "");
  }

  /** The class of a module; "" if it is unknown. */
  typeOfModule(/** @type {string} */ path) {
    return this.modules.get(path)?.type ?? this.classes[path] ?? "";
  }

  /** What an operation stores and its short attributes in one line: `W 64×3×7×7 · group 1`. */
  settings(/** @type {GraphNode} */ node) {
    const formal = this.formalInputs[node.operator] ?? [];
    const isStored = (/** @type {[string, any]} */ [name]) => Number(/^input \d+$/.test(name));
    const all = Object.entries(node.attributes).sort((a, b) => isStored(b) - isStored(a));
    const shown = all.flatMap(([name, value]) => {
      const text = plain(typeof value === "number" ? Number(value.toPrecision(4)) : value).replace(/[[\]]/g, "");
      const input = name.match(/^input (\d+)$/);
      const title = input ? (formal[Number(input[1])] ?? "") : /^\d+$/.test(name) ? "" : name;
      if (input && typeof value === "string") return [`${title} ${text.split(" ").pop()}`]; // a shape
      if (text.length > 12 || text === "" || text === "NOTSET") return [];
      return [`${title} ${text}`.trim()];
    });
    return shown.slice(0, 3).join(" · ");
  }

  /** All nodes that can be reached from `start`, itself included. */
  reach(/** @type {number} */ start, /** @type {number[][]} */ next) {
    const found = new Set([start]);
    const waiting = [start];
    while (waiting.length) {
      for (const each of next[/** @type {number} */ (waiting.pop())]) {
        if (!found.has(each)) {
          found.add(each);
          waiting.push(each);
        }
      }
    }
    return found;
  }
}

/** Values from the steps between them, which go on from each list to the next. */
function sums(/** @type {number[][]} */ lists) {
  let last = 0;
  return lists.map((steps) => steps.map((step) => (last += step)));
}

/** @returns {Map<string, ModuleFacts>} modules by path */
function moduleFacts(/** @type {any[][]} */ rows) {
  return new Map(
    rows.map(([path, type, parameters, macs, source, call, attributes, tensors, sharedWith]) => [
      path,
      { path, type, parameters, macs, source, call, attributes, tensors, sharedWith },
    ]),
  );
}

/** A value of an attribute in one line. */
function plain(/** @type {any} */ value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

const DTYPE = /^(bool|string|undefined|sequence|optional|map|sparse|(bfloat|float|u?int|q?u?int|complex)\d\w*)( |$)/;

/** A shape with its dtype, which is left out of the data where it is float32. */
function typed(/** @type {string} */ shape) {
  return !shape || DTYPE.test(shape) ? shape : `float32 ${shape}`;
}

/** `25.6 M` for 25557032, `1.5 ms` for 0.0015 with the unit s. */
function short(/** @type {number} */ value, unit = "") {
  const steps = unit === "B" ? 1024 : 1000;
  let names = unit === "B" ? ["B", "KiB", "MiB", "GiB", "TiB"] : ["", "K", "M", "G", "T", "P"];
  let size = value;
  if (unit === "s") {
    names = ["µs", "ms", "s"];
    size = value * 1e6;
  } else if (Math.abs(value) < 0.01 && value !== 0) return value.toExponential(1);
  let step = 0;
  while (Math.abs(size) >= steps && step < names.length - 1) {
    size /= steps;
    step += 1;
  }
  const digits = (step === 0 && Number.isInteger(size)) || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return `${size.toFixed(digits)} ${names[step]}`.trim();
}
