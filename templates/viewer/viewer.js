// The viewer: what is open, selected, found and colored, and the tools around the drawing.

const MOST_BOXES = 1500; // that "Open all" shows
/** @type {Record<string, string>} */
const SIGNS = { added: "+ ", removed: "− ", changed: "Δ ", moved: "→ ", remark: "! " }; // no color is needed
/** @type {Record<string, string>} */
const GRAPH_NAMES = { modules: "Module graph", autograd: "Autograd graph", onnx: "ONNX graph" };

/**
 * @typedef {{code: string, where: string, message: string}} Finding
 * @typedef {{title: string, text: string, graph: string, node: string, module: string}} Remark
 */

class GraphViewer {
  /**
   * @param {HTMLElement} root
   * @param {Graph[]} graphs
   * @param {{findings: Finding[], figures: any, remarks: Remark[]}} page
   */
  constructor(root, graphs, page) {
    this.root = root;
    this.findings = page.findings;
    this.remarks = page.remarks;
    this.states = graphs.map((graph) => new GraphState(graph));
    this.figuresOf = new Map(graphs.map((graph) => [graph, new Figures(graph, page.figures)]));
    this.colorBy = "kind";
    this.shapes = true;
    /** @type {Lit | null} */ this.lit = null;
    /** @type {string[]} */ this.found = [];
    this.foundAt = -1;
    /** @type {Map<string, Box> | null} */ this.known = null;
    /** @type {{area: Area, scale: number} | null} */ this.drawn = null;
    /** @type {number | undefined} */ this.silence = undefined;
    if (root.dataset.depth !== undefined) this.#openToDepth(Number(root.dataset.depth));
    this.state = this.states[0];
    this.tools = new Tools(this, root);
    this.canvas = this.tools.canvas;
    this.view = new View(this.canvas, () => this.#viewChanged());
    this.minimap = new Minimap(this.tools.minimap, this.view);
    this.card = new Card(this.tools.card, this);
    this.composer = new Composer(this.clusters, this.open, false);
    this.composed = this.composer.compose();
    this.scene = new Scene(this.clusters, this.style(), false);
    this.canvas.addEventListener("click", (event) => this.#click(event));
    listenToKeys(this);
    new ResizeObserver(() => this.view.apply()).observe(this.canvas);
    this.use(graphs[0].name);
  }

  get graph() {
    return this.state.graph;
  }

  get clusters() {
    return this.graph.layouts[this.state.layout];
  }

  get open() {
    return this.state.open[this.state.layout];
  }

  get figures() {
    return /** @type {Figures} */ (this.figuresOf.get(this.graph));
  }

  siblings() {
    return this.states;
  }

  #openToDepth(/** @type {number} */ depth) {
    for (const { graph, open } of this.states) {
      graph.layouts.forEach((clusters, layout) => {
        const near = clusters.ids
          .map((_, cluster) => cluster)
          .filter((cluster) => clusters.chain(cluster).length - 1 <= depth);
        open[layout] = new Set(near);
      });
    }
  }

  say(/** @type {string} */ text) {
    const { status } = this.tools;
    status.textContent = text;
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      status.textContent = "";
    }, 6000);
  }

  // ---- which graph, and how it is drawn ------------------------------------------------------

  use(/** @type {string} */ name) {
    const next = this.states.find(({ graph }) => graph.name === name);
    if (!next) return;
    if (this.state !== next) this.state.view = { x: this.view.x, y: this.view.y, scale: this.view.scale };
    this.state = next;
    this.lit = null;
    if (!this.figures.all.has(this.colorBy)) this.colorBy = "kind";
    this.tools.showGraph(this.graph, this.figures, this.colorBy, this.clusters.complete);
    this.#recompose();
    if (next.view) Object.assign(this.view, next.view);
    else this.start();
    this.search();
    this.card.show();
    this.#legend();
    this.view.apply();
  }

  showConstants(/** @type {boolean} */ shown) {
    const { clusters: before, open } = this;
    const { selected } = this.state;
    const ids = new Set([...open].map((cluster) => before.ids[cluster]));
    const layout = shown ? this.graph.layouts.length - 1 : 0;
    if (layout === this.state.layout) return;
    this.state.layout = layout;
    this.tools.constants.checked = shown;
    const opened = this.clusters.ids
      .map((_, cluster) => cluster)
      .filter((cluster) => cluster === 0 || ids.has(this.clusters.ids[cluster]));
    this.state.open[layout] = new Set(opened);
    if (selected[0] === "c") {
      const same = this.clusters.byId.get(before.ids[Number(selected.slice(1))]);
      this.state.selected = same ? `c${same}` : "";
    } else if (selected && !this.clusters.homes.has(Number(selected.slice(1)))) this.state.selected = "";
    this.#recompose();
    this.search();
    this.#refresh();
  }

  setSideways(/** @type {boolean} */ sideways) {
    this.state.sideways = sideways;
    this.#recompose();
    this.start();
  }

  showShapes(/** @type {boolean} */ shown) {
    this.shapes = shown;
    this.redraw();
  }

  setColor(/** @type {string} */ key) {
    this.colorBy = key;
    this.tools.colors.value = key;
    this.#legend();
    this.redraw();
  }

  setFull(/** @type {boolean} */ full) {
    document.body.classList.toggle("viewer-full", full);
    this.view.wheelZooms = full;
    this.canvas.focus({ preventScroll: true });
    if (!full) this.root.scrollIntoView({ block: "nearest" });
    requestAnimationFrame(() => this.view.apply());
  }

  #recompose() {
    const { sideways } = this.state;
    this.composer = new Composer(this.clusters, this.open, sideways);
    this.tools.showDirection(sideways);
    this.#layoutChanged();
  }

  #layoutChanged() {
    this.composed = this.composer.compose();
    this.known = null;
    this.drawn = null;
    this.minimap.update(this.composed);
  }

  start() {
    const { items, width, height } = this.composed;
    const { sideways } = this.state;
    const least = Math.min(...items.map((item) => (sideways ? item.x : item.y)));
    const first = items.filter((item) => (sideways ? item.x : item.y) < least + 1);
    const middles = first.map((item) => (sideways ? item.y + item.height / 2 : item.x + item.width / 2));
    this.view.start(width, height, sideways, middles.reduce((a, b) => a + b, 0) / Math.max(1, middles.length));
  }

  fit() {
    this.view.fit(this.composed.width, this.composed.height);
  }

  // ---- open and close ------------------------------------------------------------------------

  /** Open or close a cluster; what was clicked stays where it is. */
  toggle(/** @type {number} */ cluster) {
    const before = this.placeOf(`c${cluster}`);
    if (this.open.has(cluster)) this.open.delete(cluster);
    else this.open.add(cluster);
    this.composer.forget(cluster);
    this.#layoutChanged();
    const after = this.placeOf(`c${cluster}`);
    if (before && after) {
      this.view.x += after.x - before.x + (after.width - before.width) / 2;
      this.view.y += after.y - before.y;
    }
    this.#refresh();
    this.say(`${this.clusters.names[cluster]} ${this.open.has(cluster) ? "opened" : "closed"}`);
  }

  openAll(/** @type {number} */ root) {
    const opened = openUpTo(this.clusters, MOST_BOXES, root, true);
    for (const cluster of opened) this.open.add(cluster);
    for (const cluster of this.clusters.chain(root)) this.open.add(cluster);
    this.#recompose();
    const all = this.clusters.ids.length;
    if (root === 0) {
      this.start();
      this.say(
        this.open.size < all
          ? `${this.open.size} of ${all} clusters are open: more than ${MOST_BOXES} boxes would be unreadable`
          : "All clusters are open",
      );
    }
    this.#refresh();
  }

  closeAll() {
    this.open.clear();
    this.open.add(0);
    this.#recompose();
    this.start();
    this.#refresh();
  }

  #reach(/** @type {string} */ id) {
    const key = Number(id.slice(1));
    const around =
      id[0] === "n" ? this.clusters.chain(this.clusters.homes.get(key) ?? 0) : this.clusters.chain(key).slice(1);
    const closed = around.filter((cluster) => !this.open.has(cluster));
    for (const cluster of closed) this.open.add(cluster);
    if (closed.length) {
      this.composer.forget(closed[0]);
      this.#layoutChanged();
    }
  }

  // ---- selection -----------------------------------------------------------------------------

  /** Select an item by its id (`n12`, `c3`, "" for none); `reveal` opens what is around it. */
  select(/** @type {string} */ id, reveal = false) {
    if (id[0] === "n" && !this.clusters.homes.has(Number(id.slice(1)))) this.showConstants(true);
    this.state.selected = id;
    const nodes = this.selectedNodes();
    this.lit = nodes.length ? edgesAround(this.graph, nodes) : null;
    if (id && reveal) {
      this.#reach(id);
      this.card.show(); // on a narrow screen it covers a part of the drawing
      const place = this.placeOf(id);
      if (place) this.view.reveal(place, this.tools.coveredHeight());
    }
    this.#refresh();
    if (id) this.say(this.#spoken(id));
  }

  selectedNodes() {
    const { selected } = this.state;
    const key = Number(selected.slice(1));
    return !selected ? [] : selected[0] === "n" ? [key] : this.clusters.nodes(key);
  }

  #spoken(/** @type {string} */ id) {
    const key = Number(id.slice(1));
    const [title, detail] = this.label(id[0], key);
    const shape = id[0] === "n" ? this.shape(key) : this.open.has(key) ? "open" : "closed, Enter opens it";
    return [title, detail, shape].filter(Boolean).map(visible).join(", ");
  }

  /** The nearest box in a direction; at first the first box. */
  selectNeighbor(/** @type {number} */ dx, /** @type {number} */ dy) {
    const places = this.places();
    const from = places.get(this.state.selected);
    if (!from) {
      const [first] = [...places.keys()].filter((id) => !(id[0] === "c" && this.open.has(Number(id.slice(1)))));
      if (first) this.select(first, true);
      return;
    }
    const middle = (/** @type {Box} */ box) => [box.x + box.width / 2, box.y + box.height / 2];
    const [x, y] = middle(from);
    let best = "";
    let least = Infinity;
    for (const [id, box] of places) {
      if (id === this.state.selected || (id[0] === "c" && this.open.has(Number(id.slice(1))))) continue;
      const [bx, by] = middle(box);
      const ahead = (bx - x) * dx + (by - y) * dy;
      const aside = Math.abs((bx - x) * dy) + Math.abs((by - y) * dx);
      if (ahead > 4 && ahead + 2.5 * aside < least) [best, least] = [id, ahead + 2.5 * aside];
    }
    if (best) this.select(best, true);
  }

  /** Select the cluster around the selected item. */
  selectAround() {
    const { selected } = this.state;
    if (!selected) return;
    const key = Number(selected.slice(1));
    const around = selected[0] === "n" ? (this.clusters.homes.get(key) ?? 0) : this.clusters.parents[key];
    if (around > 0) this.select(`c${around}`, true);
  }

  light(/** @type {Lit} */ lit) {
    this.lit = lit;
    this.redraw();
  }

  startPath(/** @type {number} */ node) {
    this.state.start = node;
    this.say("Select the node at the other end");
    this.card.show();
  }

  showPath(/** @type {number} */ start, /** @type {number} */ end) {
    const nodes = nodesBetween(this.graph, start, end);
    this.state.start = -1;
    this.card.show();
    this.lit = nodes.size ? edgesAmong(this.graph, nodes) : null;
    this.say(nodes.size ? `${nodes.size} nodes on the paths between the two` : "No path connects the two nodes");
    this.redraw();
  }

  closeCard() {
    this.root.classList.toggle("no-card");
    this.view.apply();
  }

  /** The cluster of a module, or its nodes, in another graph. */
  showModule(/** @type {string} */ name, /** @type {string} */ module) {
    this.use(name);
    const id = this.itemOf(module);
    if (id) this.select(id, true);
  }

  /** The item that has this name: a cluster, else a node. */
  itemOf(/** @type {string} */ name) {
    const cluster = this.clusters.byId.get(name);
    if (cluster) return `c${cluster}`;
    const node = this.graph.find(name);
    return node === undefined ? "" : `n${node}`;
  }

  /** The item that a remark is about; "" if it is in another graph. */
  itemOfRemark(/** @type {Remark} */ { graph, node, module }) {
    const named = graph === this.graph.name ? this.graph.named.get(node) : undefined;
    return named === undefined ? this.itemOf(module) : `n${named}`;
  }

  /** An item in words: `Conv layer1.0.conv1`. */
  titleOf(/** @type {string} */ id) {
    const key = Number(id.slice(1));
    if (id[0] === "c") return visible(this.clusters.ids[key]);
    const place = this.graph.place(key);
    const { operator } = this.graph.nodes[key];
    return visible(place === operator ? operator : `${operator} ${place}`);
  }

  /** Items with a remark, and the clusters around them. */
  #remarked() {
    const found = new Set();
    for (const id of this.remarks.map((remark) => this.itemOfRemark(remark)).filter(Boolean)) {
      const key = Number(id.slice(1));
      const around = id[0] === "n" ? this.clusters.chain(this.clusters.homes.get(key) ?? 0) : this.clusters.chain(key);
      found.add(id);
      for (const cluster of around) if (!this.open.has(cluster)) found.add(`c${cluster}`);
    }
    return found;
  }

  // ---- search --------------------------------------------------------------------------------

  search() {
    this.found = new Search(this.graph, this.clusters).find(this.tools.searchField.value);
    this.foundAt = -1;
    const text = this.tools.searchField.value.trim();
    this.tools.searchCount.textContent = text ? (this.found.length ? `${this.found.length} found` : "none") : "";
    if (!this.state.selected) this.card.show();
    this.redraw();
  }

  nextFound(/** @type {number} */ step) {
    if (!this.found.length) return;
    this.foundAt =
      (this.foundAt + step + this.found.length + (this.foundAt < 0 && step < 0 ? 1 : 0)) % this.found.length;
    this.select(this.found[this.foundAt], true);
    this.tools.searchCount.textContent = `${this.foundAt + 1} of ${this.found.length}`;
  }

  searchKey(/** @type {KeyboardEvent} */ event) {
    if (event.key === "Enter") this.nextFound(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") {
      this.tools.searchField.value = "";
      this.search();
      this.canvas.focus({ preventScroll: true });
    } else return;
    event.preventDefault();
  }

  // ---- drawing -------------------------------------------------------------------------------

  /** Where every drawn item is. */
  places() {
    if (this.known) return this.known;
    /** @type {Map<string, Box>} */ const known = new Map();
    const add = (/** @type {Composed} */ composed, /** @type {number} */ x, /** @type {number} */ y) => {
      for (const item of composed.items) {
        if (isPort(item)) continue;
        const strip = item.names.length ? STRIP : 0;
        known.set(item.kind + item.key, {
          x: x + item.x,
          y: y + item.y + strip,
          width: item.width,
          height: item.height - strip,
        });
        if (item.inner) add(item.inner, x + item.x, y + item.y + strip);
      }
    };
    add(this.composed, 0, 0);
    this.known = known;
    return known;
  }

  /** @returns {[string, number][]} nodes and closed clusters that are drawn */
  boxes() {
    const items = [...this.places().keys()].map(
      (id) => /** @type {[string, number]} */ ([id[0], Number(id.slice(1))]),
    );
    return items.filter(([kind, key]) => kind === "n" || !this.open.has(key));
  }

  placeOf(/** @type {string} */ id) {
    return this.places().get(id);
  }

  label(/** @type {string} */ kind, /** @type {number} */ key) {
    if (kind === "c") {
      const type = this.graph.typeOfModule(this.clusters.ids[key].replace(/#\d+$/, ""));
      const parameters = this.figures.ofCluster("parameters", this.clusters, key);
      const name = this.clusters.names[key];
      const isNumber = /^\d+$/.test(name) && type;
      const changes = this.graph.marks.length
        ? this.clusters.nodes(key).filter((node) => this.graph.marks[node]).length
        : 0;
      const details = [
        changes ? `${changes} change${changes > 1 ? "s" : ""}` : "",
        isNumber ? "" : type,
        parameters ? `${short(parameters)} params` : "",
      ]
        .filter(Boolean)
        .join(" · ");
      return /** @type {[string, string]} */ ([isNumber ? `${type} ${name}` : name, details]);
    }
    const node = this.graph.nodes[key];
    const name = this.clusters.nodeNames.get(key) ?? node.name;
    if (["input", "output", "parameter"].includes(node.kind))
      return /** @type {[string, string]} */ ([name || node.kind, this.shape(key) || node.kind]);
    return /** @type {[string, string]} */ ([
      node.operator,
      [name, this.graph.settings(node)].filter(Boolean).join(" · "),
    ]);
  }

  shape(/** @type {number} */ node) {
    return this.graph.nodes[node].outputs.filter(Boolean).join(", ");
  }

  /** @returns {Style} */
  style() {
    const { clusters, graph } = this;
    const scale = this.#scale();
    const remarked = this.#remarked();
    const labels = new Map();
    return {
      selected: this.state.selected,
      lit: this.lit,
      found: new Set(this.found),
      shapes: this.shapes,
      shape: (source) => this.shape(source),
      valueName: (source) => clusters.nodeNames.get(source) || graph.nodes[source].operator,
      mark: (kind, key) => {
        if (remarked.has(kind + key)) return "remark";
        if (kind === "n") return graph.marks[key] ?? "";
        return graph.marks.length && clusters.nodes(key).some((node) => graph.marks[node]) ? "inside" : "";
      },
      label: (kind, key) => {
        const id = kind + key;
        if (!labels.has(id)) labels.set(id, this.label(kind, key));
        return labels.get(id);
      },
      paint: (kind, key) => {
        const share = scale ? scale.share(this.#value(kind, key)) : null;
        return { category: kind === "n" ? category(graph.nodes[key]) : "group", share };
      },
    };
  }

  #value(/** @type {string} */ kind, /** @type {number} */ key) {
    const { figures, colorBy, clusters } = this;
    return kind === "n" ? figures.ofNode(colorBy, key) : figures.ofCluster(colorBy, clusters, key);
  }

  /** From the figures of the boxes that are seen to colors: the heaviest has the full one. */
  #scale() {
    const figure = this.figures.all.get(this.colorBy);
    if (!figure) return null;
    return new ColorScale(
      this.boxes().map(([kind, key]) => this.#value(kind, key)),
      figure.logarithmic,
    );
  }

  redraw() {
    this.drawn = null;
    this.view.apply();
  }

  #refresh() {
    this.card.show();
    this.redraw();
    this.#legend();
    this.#remember();
  }

  #viewChanged() {
    const seen = this.view.area();
    this.minimap.frame();
    const { drawn } = this;
    const near = (/** @type {number} */ a, /** @type {number} */ b) => a / b < 1.25 && b / a < 1.25;
    if (
      drawn &&
      near(drawn.scale, this.view.scale) &&
      seen.left >= drawn.area.left &&
      seen.right <= drawn.area.right &&
      seen.top >= drawn.area.top &&
      seen.bottom <= drawn.area.bottom
    )
      return;
    const area = this.view.area(0.35);
    if (!drawn) this.scene = new Scene(this.clusters, this.style(), this.state.sideways);
    this.canvas.replaceChildren(arrows(), this.scene.draw(this.composed, area, this.view.scale));
    this.drawn = { area, scale: this.view.scale };
  }

  #legend() {
    const figure = this.figures.all.get(this.colorBy);
    if (figure) {
      const { least, most, isComplete } = /** @type {ColorScale} */ (this.#scale());
      const parts = [
        html("span", {}, figure.label),
        html("span", {}, short(least, figure.unit)),
        html("span", { class: "scale" }),
        html("span", {}, most ? short(most, figure.unit) : "no box with a figure is open"),
        isComplete ? "" : html("span", { class: "note" }, "a box with a bar: unknown"),
      ];
      this.tools.legend.replaceChildren(...parts);
      return;
    }
    if (this.graph.marks.length) {
      const kinds = Object.entries(SIGNS).filter(([mark]) => this.graph.marks.includes(mark));
      this.tools.legend.replaceChildren(
        ...kinds.map(([mark, sign]) =>
          html(
            "span",
            { class: `mark-key mark-${mark}` },
            `${sign}${mark} ${this.graph.marks.filter((each) => each === mark).length}`,
          ),
        ),
      );
      return;
    }
    const seen = new Set(this.graph.nodes.filter((node) => this.clusters.homes.has(node.index)).map(category));
    const order = ["input", "output", "parameter", ...CATEGORIES.map(([name]) => name), "other", "constant"];
    this.tools.legend.replaceChildren(
      ...order
        .filter((name) => seen.has(name))
        .map((name) => html("span", { class: `key ${kindClass(name)}` }, name)),
    );
  }

  #click(/** @type {MouseEvent} */ event) {
    if (this.view.moved) return;
    const target = /** @type {Element} */ (event.target);
    const toggle = target.closest("[data-toggle]");
    const jump = target.closest("[data-jump]");
    const item = target.closest("[data-item]");
    this.canvas.focus({ preventScroll: true });
    if (jump) this.select(`n${jump.getAttribute("data-jump")}`, true);
    else if (toggle) this.#toggleAndSelect(Number(toggle.getAttribute("data-toggle")));
    else {
      const id = item?.getAttribute("data-item") ?? "";
      const cluster = id[0] === "c" ? Number(id.slice(1)) : -1;
      const isBox = id[0] === "n" || (cluster >= 0 && !this.open.has(cluster));
      const source = isBox ? null : this.#valueAt(event);
      if (source !== null) this.selectValue(source);
      else if (cluster >= 0 && isBox) this.#toggleAndSelect(cluster);
      else this.select(id);
    }
  }

  /** The node whose value flows along the edge at or near a place on the screen; null for none. */
  #valueAt(/** @type {MouseEvent} */ event) {
    const toDrawing = /** @type {SVGGraphicsElement} */ (this.canvas).getScreenCTM()?.inverse();
    const edges = /** @type {SVGPathElement[]} */ ([...this.canvas.querySelectorAll(".flow")]);
    for (const reach of [0, 1, 2, 3, 4, 5]) {
      for (const dx of [-reach, 0, reach]) {
        for (const dy of [-reach, 0, reach]) {
          const point = new DOMPoint(event.clientX + dx, event.clientY + dy).matrixTransform(toDrawing);
          const hit = edges.find((edge) => edge.isPointInStroke(point));
          if (hit) return Number(hit.dataset.value);
        }
      }
    }
    return null;
  }

  /** Color one value on its way to all of its readers. */
  selectValue(/** @type {number} */ source) {
    const readers = new Set(this.graph.consumers[source]);
    this.select(`n${source}`);
    this.light(new Map([[source, readers]]));
    this.say(`${this.titleOf(`n${source}`)}: ${this.shape(source)}, read by ${readers.size}`);
  }

  #toggleAndSelect(/** @type {number} */ cluster) {
    this.state.selected = `c${cluster}`;
    this.lit = edgesAround(this.graph, this.clusters.nodes(cluster));
    this.toggle(cluster);
  }

  // ---- links ---------------------------------------------------------------------------------

  #remember() {
    const { selected } = this.state;
    const node = !selected
      ? ""
      : selected[0] === "n"
        ? this.graph.nodes[Number(selected.slice(1))].id
        : this.clusters.ids[Number(selected.slice(1))];
    const open = [...this.open].filter((cluster) => cluster > 0).map((cluster) => this.clusters.ids[cluster]);
    history.replaceState(null, "", makeLink(this.graph.name, node, open));
  }

  /** Show what a link names; false if it is no link to a graph. */
  follow(/** @type {string} */ hash) {
    const link = readLink(hash);
    if (!link || !this.states.some(({ graph }) => graph.name === link.graph)) return false;
    this.use(link.graph);
    if (link.open.length) {
      this.state.open[this.state.layout] = new Set([
        0,
        ...link.open.flatMap((id) => this.clusters.byId.get(id) ?? []),
      ]);
      this.#recompose();
    }
    const node = this.graph.byId.get(link.node);
    const id = this.clusters.byId.has(link.node) || node === undefined ? this.itemOf(link.node) : `n${node}`;
    if (link.node && id) this.select(id, true);
    else this.start();
    return true;
  }
}
