// Everything that is known of the selected box, beside the drawing.

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const MOST_FOUND = 30; // listed

class Card {
  /**
   * @param {HTMLElement} element
   * @param {GraphViewer} viewer
   */
  constructor(element, viewer) {
    this.element = element;
    this.viewer = viewer;
  }

  show() {
    const { selected } = this.viewer.state;
    const key = Number(selected.slice(1));
    const content = !selected ? this.#overview() : selected[0] === "n" ? this.#node(key) : this.#cluster(key);
    this.element.replaceChildren(...content.filter(Boolean));
    this.element.scrollTop = 0;
  }

  #overview() {
    const { graph, figures } = this.viewer;
    const count = (/** @type {string} */ kind) => graph.nodes.filter((node) => node.kind === kind);
    const rows = [
      ["Nodes", graph.nodes.length.toLocaleString("en")],
      ["Edges", graph.producers.reduce((sum, each) => sum + each.length, 0).toLocaleString("en")],
      ...Object.entries(Object.keys(graph.properties).length ? graph.properties : graph.attributes).map(
        ([name, value]) => [name, plain(value)],
      ),
    ];
    const parts = [
      this.#heading(graphTitle(graph), "Click a box for its details"),
      ...this.#found(),
      ...this.#remarks(this.viewer.remarks, true),
      this.#facts(rows),
      ...this.#changes(graph.nodes.map((node) => node.index)),
    ];
    for (const kind of ["input", "output"]) {
      const nodes = count(kind);
      if (nodes.length)
        parts.push(
          ...this.#list(
            kind === "input" ? "Inputs" : "Outputs",
            nodes.map((node) => node.index),
          ),
        );
    }
    // the largest errors are downstream of where they begin, which a remark says
    const summed = [...figures.all.values()].filter((figure) => !figure.logarithmic);
    for (const figure of summed) parts.push(...this.#heaviest(figure));
    parts.push(...this.#findings(this.viewer.findings));
    const { engine } = this.viewer.clusters;
    if (engine !== "dot") parts.push(html("p", { class: "note" }, `${engine}.`));
    parts.push(html("h4", {}, "Keyboard"), html("p", { class: "note" }, `${HELP}.`));
    return parts;
  }

  /** The five nodes, or of a measured figure the modules, with the most. */
  #heaviest(/** @type {Figure} */ figure) {
    const nodes = figure.values.flatMap((value, node) => (value ? [{ value, link: () => this.#jump(node) }] : []));
    const modules = Object.entries(figure.byModule)
      .filter(([module]) => this.viewer.itemOf(module)) // not the time of what belongs to no module
      .map(([module, value]) => ({ value, link: () => this.#jumpToModule(module) }));
    if (!modules.length && nodes.length < this.viewer.graph.nodes.length / 3 && figure.unit) return []; // mostly unknown
    const heaviest = (modules.length ? modules : nodes).sort((a, b) => b.value - a.value).slice(0, 5);
    if (!heaviest.length) return [];
    const share = (/** @type {number} */ value) => (figure.total ? ` · ${this.#share(value, figure.total)}` : "");
    const name = figure.label === "MACs" ? figure.label : figure.label.toLowerCase();
    return [
      html("h4", {}, modules.length ? figure.label : `Most ${name}`),
      html(
        "ul",
        { class: "links" },
        ...heaviest.map(({ value, link }) =>
          html("li", {}, link(), html("span", { class: "figure-of" }, short(value, figure.unit) + share(value))),
        ),
      ),
    ];
  }

  /** What the search found, to choose from. */
  #found() {
    const { found } = this.viewer;
    if (!found.length) return [];
    const rows = found.slice(0, MOST_FOUND).map((id) => {
      const click = () => this.viewer.select(id, true);
      return html("li", {}, html("button", { type: "button", class: "jump", click }, this.viewer.titleOf(id)));
    });
    if (found.length > rows.length) {
      rows.push(html("li", { class: "note" }, `and ${found.length - rows.length} more`));
    }
    return [html("h4", {}, `Found ${found.length}`), html("ul", { class: "links" }, ...rows)];
  }

  /** What a reader must know, of all places in this graph or of one that is shown. */
  #remarks(/** @type {Remark[]} */ remarks, /** @type {boolean} */ withLink) {
    return remarks.map((remark) => {
      const id = this.viewer.itemOfRemark(remark);
      const click = () => this.viewer.select(id, true);
      return html(
        "div",
        { class: "remark" },
        html("b", {}, visible(remark.title)),
        withLink && id
          ? html("button", { type: "button", class: "jump", click }, html("bdi", {}, `at ${this.viewer.titleOf(id)}`))
          : null,
        html("p", {}, visible(remark.text)),
      );
    });
  }

  #remarksAt(/** @type {string} */ id) {
    const here = this.viewer.remarks.filter((remark) => this.viewer.itemOfRemark(remark) === id);
    return this.#remarks(here, false);
  }

  /** Findings whose place is in this graph. */
  #findings(/** @type {{code: string, where: string, message: string}[]} */ findings) {
    const known = findings.filter(({ where }) => this.viewer.itemOf(where));
    if (!known.length) return [];
    const rows = known
      .slice(0, 20)
      .map(({ code, where, message }) =>
        html(
          "li",
          { class: "finding-of" },
          html("b", {}, code),
          " ",
          this.#jumpToModule(where),
          html("div", {}, visible(message)),
        ),
      );
    return [html("h4", {}, "Findings"), html("ul", { class: "links" }, ...rows)];
  }

  #jumpToModule(/** @type {string} */ module) {
    const click = () => this.viewer.select(this.viewer.itemOf(module), true);
    return html("button", { type: "button", class: "jump", click }, html("bdi", {}, visible(module)));
  }

  #node(/** @type {number} */ index) {
    const { graph, figures } = this.viewer;
    const node = graph.nodes[index];
    const facts = node.kind === "module" || graph.name === "onnx" ? graph.modules.get(node.module) : undefined;
    const isModule = node.kind === "module";
    const rows = [["Kind", node.kind === "operation" ? category(node) : node.kind]];
    if (!isModule && node.module) rows.push(["Module", node.module]);
    rows.push(...this.#figures((key) => figures.ofNode(key, index)));
    if (graph.fileNames[index]) rows.push(["Name in the file", graph.fileNames[index]]);
    const version = graph.versions[node.operator];
    if (version) rows.push(["Operator of", `opset ${version}`]);
    if (facts) rows.push(...this.#origin(facts));
    rows.push(...(graph.metadata.get(index) ?? []));
    return [
      this.#heading(node.operator, node.id.replace(/^\//, "")),
      ...this.#remarksAt(`n${index}`),
      this.#actions(index),
      ...this.#changes([index]),
      this.#facts(rows),
      ...this.#attributes(isModule && facts ? { ...facts.attributes, ...node.attributes } : node.attributes),
      ...this.#tensors(isModule ? facts : undefined),
      ...(graph.inputNames[index]?.length ? this.#inputs(node) : this.#list("Reads", graph.producers[index])),
      ...this.#outputs(node),
      ...this.#list("Read by", graph.consumers[index]),
      ...this.#body(node),
      ...this.#elsewhere(node.module, graph.fileNames[index]),
    ];
  }

  /** The local function that a node of a file runs. */
  #body(/** @type {GraphNode} */ node) {
    const name = `function ${node.operator.split(".").pop()}`;
    const cluster = this.viewer.clusters.byId.get(name);
    if (!cluster) return [];
    const click = () => this.viewer.select(`c${cluster}`, true);
    const jump = html("button", { type: "button", class: "jump", click }, html("b", {}, visible(name)));
    return [html("h4", {}, "Runs"), html("ul", { class: "links" }, html("li", {}, jump))];
  }

  #cluster(/** @type {number} */ cluster) {
    const { graph, clusters, figures } = this.viewer;
    const path = clusters.ids[cluster].replace(/#\d+$/, "");
    const facts = graph.modules.get(path);
    const nodes = clusters.nodes(cluster);
    const isOpen = this.viewer.open.has(cluster);
    const rows = [
      ["Nodes inside", nodes.length.toLocaleString("en")],
      ...this.#figures((key) => figures.ofCluster(key, clusters, cluster)),
      ...(facts ? this.#origin(facts) : []),
    ];
    const button = (/** @type {string} */ text, /** @type {() => void} */ click) =>
      html("button", { type: "button", click }, text);
    const inside = new Set(nodes);
    const entering = [
      ...new Set(nodes.flatMap((node) => graph.producers[node].filter((each) => !inside.has(each)))),
    ];
    const leaving = [
      ...new Set(nodes.flatMap((node) => graph.consumers[node].filter((each) => !inside.has(each)))),
    ];
    return [
      this.#heading(graph.typeOfModule(path) || clusters.names[cluster], path || "the model"),
      ...this.#remarksAt(`c${cluster}`),
      html(
        "p",
        { class: "actions" },
        button(isOpen ? "Close" : "Open", () => this.viewer.toggle(cluster)),
        button("Open all inside", () => this.viewer.openAll(cluster)),
        button("Save as SVG", () => saveDrawing(this.viewer, "svg", cluster)),
        button("PNG", () => saveDrawing(this.viewer, "png", cluster)),
      ),
      this.#facts(rows),
      ...this.#changes(nodes),
      ...this.#attributes(facts?.attributes ?? {}),
      ...this.#tensors(facts),
      ...this.#list("Reads", entering),
      ...this.#list("Read by", leaving),
      ...this.#elsewhere(path),
    ];
  }

  /** What changed between two reports, of some nodes. */
  #changes(/** @type {number[]} */ nodes) {
    const { marks, notes } = this.viewer.graph;
    const changed = nodes.filter((node) => marks[node]);
    if (!changed.length) return [];
    const shown = changed.slice(0, 60);
    return [
      html("h4", {}, `Changes ${changed.length > 1 ? changed.length : ""}`),
      html(
        "ul",
        { class: "links" },
        ...shown.map((node) =>
          html(
            "li",
            { class: "input-of" },
            html("b", { class: `mark-key mark-${marks[node]}` }, SIGNS[marks[node]] + marks[node]),
            " ",
            nodes.length > 1 ? this.#jump(node) : null,
            ...(notes[node] ?? []).map((note) => html("div", { class: "figure-of left" }, visible(note))),
          ),
        ),
        changed.length > shown.length && html("li", { class: "note" }, `and ${changed.length - shown.length} more`),
      ),
    ];
  }

  #heading(/** @type {string} */ title, /** @type {string} */ path) {
    return html(
      "header",
      {},
      html("h3", {}, visible(title)),
      html("p", { class: "path" }, html("bdi", {}, visible(path))),
      html(
        "button",
        { type: "button", class: "close", "aria-label": "Close the details", click: () => this.viewer.closeCard() },
        "×",
      ),
    );
  }

  #actions(/** @type {number} */ index) {
    const { viewer } = this;
    const button = (/** @type {string} */ text, /** @type {() => void} */ click, /** @type {string} */ title) =>
      html("button", { type: "button", click, title }, text);
    const start = viewer.state.start;
    return html(
      "p",
      { class: "actions" },
      button(
        "Everything before",
        () => viewer.light(edgesAmong(viewer.graph, viewer.graph.reach(index, viewer.graph.producers))),
        "Color every edge that this node depends on",
      ),
      button(
        "Everything after",
        () => viewer.light(edgesAmong(viewer.graph, viewer.graph.reach(index, viewer.graph.consumers))),
        "Color every edge that depends on this node",
      ),
      start >= 0 && start !== index
        ? button(
            `Path from ${fitted(viewer.graph.place(start), 20, 1)}`,
            () => viewer.showPath(start, index),
            "Color every path between the two nodes",
          )
        : button("Path from here", () => viewer.startPath(index), "Then select the other end"),
    );
  }

  #facts(/** @type {string[][]} */ rows) {
    return html(
      "dl",
      {},
      ...rows.flatMap(([name, value]) => [
        html("dt", {}, visible(name)),
        html("dd", {}, html("bdi", {}, visible(value))),
      ]),
    );
  }

  #figures(/** @type {(key: string) => number | null} */ figureOf) {
    const rows = [];
    for (const [key, figure] of this.viewer.figures.all) {
      const value = figureOf(key);
      if (!value) continue;
      const share = figure.total ? ` · ${this.#share(value, figure.total)} of all` : "";
      rows.push([figure.label, short(value, figure.unit) + share]);
    }
    return rows;
  }

  #share(/** @type {number} */ value, /** @type {number} */ total) {
    const percent = (100 * value) / total;
    return `${percent >= 10 ? percent.toFixed(0) : percent >= 0.01 ? percent.toPrecision(2) : "< 0.01"} %`;
  }

  #origin(/** @type {ModuleFacts} */ facts) {
    const rows = [];
    if (facts.sharedWith) rows.push(["Same weights as", facts.sharedWith]);
    if (facts.source) rows.push(["Defined at", facts.source]);
    if (facts.call) rows.push(["Called at", facts.call]);
    return rows;
  }

  #attributes(/** @type {Record<string, any>} */ attributes) {
    // stored tensors are shown with the inputs
    const isShown = (/** @type {[string, any]} */ [name, value]) =>
      value !== null && !(this.viewer.graph.tensors.size && /^input \d+$/.test(name));
    const rows = Object.entries(attributes)
      .filter(isShown)
      .map(([name, value]) => [/^\d+$/.test(name) ? `argument ${name}` : name, plain(value)]);
    return rows.length ? [html("h4", {}, "Attributes"), this.#facts(rows)] : [];
  }

  #tensors(/** @type {ModuleFacts | undefined} */ facts) {
    if (!facts?.tensors.length) return [];
    return [
      html("h4", {}, "Parameters and buffers"),
      this.#facts(facts.tensors.map(([name, shape, dtype]) => [name, `${shape} ${dtype}`])),
    ];
  }

  #outputs(/** @type {GraphNode} */ node) {
    const names = (this.viewer.graph.outputNames[node.index] ?? []).filter(Boolean);
    if (!names.length && !node.outputs.some(Boolean)) return [];
    const many = node.outputs.length > 1;
    return [
      html("h4", {}, many ? "Outputs" : "Output"),
      this.#facts(node.outputs.map((shape, n) => [names[n] || (many ? String(n) : "shape"), typed(shape) || "unknown"])),
    ];
  }

  /** The inputs of a node of a file, by the names of the standard: values and stored tensors. */
  #inputs(/** @type {GraphNode} */ node) {
    const { graph } = this.viewer;
    const formal = graph.formalInputs[node.operator] ?? [];
    const rows = graph.inputNames[node.index].map((name, place) => {
      const title = formal[Math.min(place, formal.length - 1)] ?? String(place);
      const tensor = graph.tensors.get(name);
      const maker = graph.makers.get(name);
      if (!name) return null;
      return html(
        "li",
        { class: "input-of" },
        html("span", { class: "formal" }, visible(title)),
        tensor
          ? this.#tensor(tensor)
          : maker !== undefined && maker !== node.index
            ? html("span", {}, this.#jump(maker), html("div", { class: "figure-of left" }, visible(`${name} ${graph.typeOf(name)}`)))
            : html("bdi", {}, visible(name)),
      );
    });
    return [html("h4", {}, "Inputs"), html("ul", { class: "links" }, ...rows)];
  }

  #tensor(/** @type {StoredTensor} */ tensor) {
    const parts = [
      html("b", {}, html("bdi", {}, visible(tensor.name))),
      ` ${tensor.dtype} ${tensor.shape} · ${short(tensor.bytes, "B")}`,
    ];
    if (tensor.external) parts.push(` in ${visible(tensor.external)}`);
    const found = html("div", { class: "tensor" }, ...parts);
    if (!tensor.statistics.length) return found;
    const [least, most, mean, deviation] = tensor.statistics.map((value) => String(Number(value.toPrecision(4))));
    const bars = [...tensor.bins].map((digit, n) => {
      const height = (22 * DIGITS.indexOf(digit)) / (DIGITS.length - 1);
      return svg("rect", { x: n * 9, y: 23 - height, width: 8, height: height + 1 });
    });
    const text =
      least === most
        ? tensor.shape === "scalar"
          ? least
          : `every element is ${least}`
        : `${least} to ${most}, mean ${mean}, deviation ${deviation}`;
    if (tensor.shape !== "scalar" && tensor.statistics[0] !== tensor.statistics[1]) {
      found.append(
        svg(
          "svg",
          {
            class: "histogram",
            viewBox: `0 0 ${9 * tensor.bins.length} 24`,
            role: "img",
            "aria-label": `Histogram of ${tensor.name}: ${text}`,
          },
          ...bars,
        ),
      );
    }
    const notes = [
      text,
      tensor.zeros && least !== most ? `${Number((100 * tensor.zeros).toPrecision(2))} % zeros` : "",
      tensor.sampled ? "of a million of its elements" : "",
    ];
    found.append(html("div", { class: "figure-of" }, notes.filter(Boolean).join(", ")));
    return found;
  }

  #list(/** @type {string} */ title, /** @type {number[]} */ nodes) {
    const distinct = [...new Set(nodes)];
    if (!distinct.length) return [];
    const shown = distinct.slice(0, 40);
    return [
      html("h4", {}, `${title} ${distinct.length > 1 ? distinct.length : ""}`),
      html(
        "ul",
        { class: "links" },
        ...shown.map((node) =>
          html(
            "li",
            {},
            this.#jump(node),
            html(
              "span",
              { class: "figure-of" },
              visible(this.viewer.graph.nodes[node].outputs.map(typed).join(", ")),
            ),
          ),
        ),
        distinct.length > shown.length &&
          html("li", { class: "note" }, `and ${distinct.length - shown.length} more`),
      ),
    ];
  }

  #jump(/** @type {number} */ node) {
    const { operator } = this.viewer.graph.nodes[node];
    const place = this.viewer.graph.place(node);
    return html(
      "button",
      { type: "button", class: "jump", click: () => this.viewer.select(`n${node}`, true) },
      html("b", {}, visible(operator)),
      " ",
      html("bdi", {}, visible(place === operator ? "" : place)),
    );
  }

  /** The same module in the other graphs, in the table of layers, and in the findings. */
  #elsewhere(/** @type {string} */ module, name = "") {
    const found = [];
    for (const { graph } of module ? this.viewer.siblings() : []) {
      if (graph.name === this.viewer.graph.name) continue;
      const nodes = graph.nodesOf(module);
      const name = graphTitle(graph);
      if (!nodes.length) {
        const note = "no node: it was merged into others, or does nothing there";
        found.push(html("li", {}, html("b", {}, name), html("span", { class: "figure-of left" }, note)));
        continue;
      }
      const [{ module: home, operator }] = nodes;
      const isOther = home !== module && !home.startsWith(`${module}.`); // fused with another module
      found.push(
        html(
          "li",
          {},
          html(
            "button",
            { type: "button", class: "jump", click: () => this.viewer.showModule(graph.name, module) },
            html("b", {}, name),
          ),
          html(
            "span",
            { class: "figure-of" },
            isOther ? visible(`in ${operator} of ${home || "the model"}`) : nodes.length > 1 ? `${nodes.length} nodes` : operator,
          ),
        ),
      );
    }
    const row = rowOf(module);
    if (row)
      found.push(
        html(
          "li",
          {},
          html(
            "button",
            { type: "button", class: "jump", click: () => goToRow(row) },
            html("b", {}, "Table of layers"),
          ),
        ),
      );
    for (const finding of this.viewer.findings) {
      if (!finding.where || ![module, name].includes(finding.where)) continue;
      found.push(html("li", { class: "finding-of" }, html("b", {}, finding.code), ` ${visible(finding.message)}`));
    }
    return found.length ? [html("h4", {}, "Elsewhere"), html("ul", { class: "links" }, ...found)] : [];
  }
}
