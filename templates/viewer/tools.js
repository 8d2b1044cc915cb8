// The elements around the drawing: tabs, search, switches, buttons, legend, and the side card.

class Tools {
  /**
   * @param {GraphViewer} viewer
   * @param {HTMLElement} root
   */
  constructor(viewer, root) {
    const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {() => void} */ click) =>
      html("button", { type: "button", title: label, "aria-label": label, click }, icon(text) ?? text);
    const checkbox = (/** @type {boolean} */ checked, /** @type {(checked: boolean) => void} */ change) => {
      const box = /** @type {HTMLInputElement} */ (html("input", { type: "checkbox", checked }));
      box.addEventListener("change", () => change(box.checked));
      return box;
    };
    this.tabs = this.#tabs(viewer);
    this.searchField = /** @type {HTMLInputElement} */ (
      html("input", {
        type: "search",
        placeholder: "Search name, type, shape",
        "aria-label": "Search the nodes of this graph",
        spellcheck: "false",
        input: () => viewer.search(),
        keydown: (event) => viewer.searchKey(event),
      })
    );
    this.searchCount = html("output", { class: "found-count", "aria-live": "polite" });
    const search = html(
      "div",
      { class: "search", role: "search" },
      this.searchField,
      this.searchCount,
      button("previous", "Previous match", () => viewer.nextFound(-1)),
      button("next", "Next match", () => viewer.nextFound(1)),
    );
    this.colors = /** @type {HTMLSelectElement} */ (
      html("select", { "aria-label": "Color by", change: () => viewer.setColor(this.colors.value) })
    );
    this.constants = checkbox(false, (checked) => viewer.showConstants(checked));
    this.constantsText = html("span", { title: "Constants and the arithmetic of shapes" });
    this.constantsLabel = html("label", {}, this.constants, this.constantsText);
    const shapes = checkbox(true, (checked) => viewer.showShapes(checked));
    this.direction = button("sideways", "Left to right", () => viewer.setSideways(!viewer.state.sideways));
    const buttons = html(
      "div",
      { class: "buttons" },
      button("open all", `Open all, up to ${MOST_BOXES} boxes`, () => viewer.openAll(0)),
      button("close all", "Close all", () => viewer.closeAll()),
      this.direction,
      button("minus", "Zoom out", () => viewer.view.zoomBy(0.8)),
      button("plus", "Zoom in", () => viewer.view.zoomBy(1.25)),
      button("Fit", "Fit the drawing into the window (0)", () => viewer.fit()),
      button("SVG", "Save the drawing as SVG", () => saveDrawing(viewer, "svg")),
      button("PNG", "Save the drawing as PNG", () => saveDrawing(viewer, "png")),
      button("full", "Fill the window (F)", () => viewer.setFull(!document.body.classList.contains("viewer-full"))),
    );
    this.canvas = /** @type {SVGSVGElement} */ (
      svg("svg", { class: "drawing", tabindex: 0, role: "application", "aria-label": `Graph. ${HELP}` })
    );
    this.minimap = /** @type {HTMLCanvasElement} */ (html("canvas", { class: "minimap", "aria-hidden": "true" }));
    this.legend = html("div", { class: "legend-of-colors" });
    this.status = html("output", { class: "said", "aria-live": "polite" });
    this.card = html("aside", { class: "card", "aria-label": "Details" });
    const showCard = button("Details", "Show the details (C)", () => viewer.closeCard());
    showCard.className = "show-card";
    root.replaceChildren(
      html(
        "div",
        { class: "viewer-tools" },
        html("div", { class: "first" }, this.tabs, search),
        html("label", { class: "color" }, html("span", {}, "Color "), this.colors),
        html("div", { class: "switches" }, html("label", {}, shapes, "Shapes"), this.constantsLabel),
        buttons,
      ),
      html(
        "div",
        { class: "stage" },
        html("div", { class: "paper" }, this.canvas, this.minimap, this.status, showCard),
        this.card,
      ),
      this.legend,
    );
    if (root.clientWidth < 700) root.classList.add("no-card");
  }

  #tabs(/** @type {GraphViewer} */ viewer) {
    const tabs = viewer.states.map(({ graph }) => {
      const count = html("span", { class: "count" }, ` ${graph.nodes.length.toLocaleString("en")}`);
      const use = () => viewer.use(graph.name);
      return html(
        "button",
        { type: "button", role: "tab", "data-graph": graph.name, click: use },
        graphTitle(graph),
        count,
      );
    });
    return html("div", { class: "tabs", role: "tablist", "aria-label": "Graphs" }, ...tabs);
  }

  /** Set the tools to a graph. */
  showGraph(
    /** @type {Graph} */ graph,
    /** @type {Figures} */ figures,
    /** @type {string} */ colorBy,
    /** @type {boolean} */ complete,
  ) {
    for (const tab of /** @type {Iterable<HTMLElement>} */ (this.tabs.children)) {
      tab.setAttribute("aria-selected", String(tab.dataset.graph === graph.name));
    }
    const options = [...figures.all].map(([key, { label }]) => html("option", { value: key }, label));
    this.colors.replaceChildren(html("option", { value: "kind" }, "by kind"), ...options);
    this.colors.value = colorBy;
    this.constantsLabel.hidden = graph.constants === 0;
    this.constants.checked = graph.constants === 0 || complete;
    this.constantsText.textContent = `${graph.constants} constants`;
  }

  /** Pixels at the bottom of the drawing that the side card covers on a narrow screen. */
  coveredHeight() {
    const [card, drawing] = [this.card.getBoundingClientRect(), this.canvas.getBoundingClientRect()];
    const isBelow = card.height > 0 && card.left < drawing.right - 1;
    return isBelow ? Math.max(0, drawing.bottom - card.top) : 0;
  }

  showDirection(/** @type {boolean} */ sideways) {
    this.direction.replaceChildren(icon(sideways ? "down" : "sideways") ?? "");
    this.direction.title = sideways ? "Top down" : "Left to right";
    this.direction.setAttribute("aria-label", this.direction.title);
  }
}

/** The heads of arrows, which the edges of a drawing use. */
function arrows() {
  const arrow = (/** @type {string} */ id) =>
    svg(
      "marker",
      {
        id,
        viewBox: "0 0 8 8",
        refX: 7,
        refY: 4,
        markerWidth: 6.5,
        markerHeight: 6.5,
        orient: "auto",
        markerUnits: "userSpaceOnUse",
      },
      svg("path", { class: id, d: "M0 0.6L8 4L0 7.4z" }),
    );
  return svg("defs", {}, arrow("arrow"), arrow("arrow-lit"));
}

function graphTitle(/** @type {Graph} */ graph) {
  return GRAPH_NAMES[graph.name] ?? graph.name;
}
