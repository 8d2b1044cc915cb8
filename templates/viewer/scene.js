// The drawing as SVG. Only what is in or near the view exists; small boxes have no text.

const LABELS_FROM = 0.4; // pixels per point from which a box has its text
const DETAILS_FROM = 0.62;
const SHAPES_FROM = 0.8;
const BLOCK_BELOW = 30; // pixels: a smaller open cluster is one block
const SMALL_LETTER = 5.3; // its width
const LONGEST_TIP = 300; // letters

/** @typedef {{left: number, top: number, right: number, bottom: number}} Area */

/**
 * @typedef {object} Style what the drawing depends on besides the layout
 * @property {(kind: string, key: number) => {category: string, share: number | null}} paint
 * @property {(kind: string, key: number) => [string, string]} label title and second line
 * @property {(kind: string, key: number) => string} mark `added`, `removed`, `changed` or ""
 * @property {(source: number) => string} shape of the value of a node
 * @property {(source: number) => string} valueName what a reader calls it
 * @property {string} selected the id of an item: `n12`
 * @property {Map<number, Set<number>> | null} lit the edges in color: readers by producing node
 * @property {Set<string>} found ids of items that a search found
 * @property {boolean} shapes whether edges have their shapes
 */

class Scene {
  constructor(/** @type {Clusters} */ clusters, /** @type {Style} */ style, /** @type {boolean} */ sideways) {
    this.clusters = clusters;
    this.style = style;
    this.sideways = sideways;
    /** @type {Area} */ this.area = { left: 0, top: 0, right: 0, bottom: 0 };
    this.scale = 1; // pixels per point
  }

  /** Everything of `composed` that touches `area`, at `scale` pixels per point. */
  draw(/** @type {Composed} */ composed, /** @type {Area} */ area, /** @type {number} */ scale) {
    this.area = area;
    this.scale = scale;
    const group = svg("g", { class: this.style.lit ? "content dimmed" : "content" });
    this.#content(group, composed, 0, 0, 0);
    return group;
  }

  #outside(
    /** @type {number} */ left,
    /** @type {number} */ top,
    /** @type {number} */ right,
    /** @type {number} */ bottom,
  ) {
    const { area } = this;
    return right < area.left || left > area.right || bottom < area.top || top > area.bottom;
  }

  #content(
    /** @type {Element} */ group,
    /** @type {Composed} */ composed,
    /** @type {number} */ x,
    /** @type {number} */ y,
    /** @type {number} */ depth,
  ) {
    const edges = svg("g", { class: "flows" });
    const labels = svg("g", { class: "shapes" });
    group.append(edges);
    for (const item of composed.items) {
      if (item.kind === "i" || item.kind === "o") continue;
      const [left, top] = [x + item.x, y + item.y];
      if (this.#outside(left, top - 4, left + item.width, top + item.height)) continue;
      this.#item(group, item, left, top, depth);
    }
    for (const flow of composed.flows) this.#flow(edges, labels, composed, flow, x, y);
    group.append(labels);
  }

  #flow(
    /** @type {Element} */ edges,
    /** @type {Element} */ labels,
    /** @type {Composed} */ composed,
    /** @type {Flow} */ flow,
    /** @type {number} */ x,
    /** @type {number} */ y,
  ) {
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const point of flow.points) {
      left = Math.min(left, point.x);
      right = Math.max(right, point.x);
      top = Math.min(top, point.y);
      bottom = Math.max(bottom, point.y);
    }
    if (this.#outside(left + x - 30, top + y, right + x + 30, bottom + y)) return;
    const lit = this.#isLit(composed, flow);
    const path = svg("path", {
      class: `flow${lit ? " lit" : ""}`,
      d: this.#path(flow.points, x, y),
      "marker-end": flow.arrow && this.scale > 0.25 ? `url(#${lit ? "arrow-lit" : "arrow"})` : null,
      "data-value": flow.source,
    });
    edges.append(path);
    if ((!this.style.shapes && !lit) || this.scale < SHAPES_FROM) return;
    // inside an open cluster the value has its shape where it is made
    const producer = composed.items[flow.producer];
    if (producer.kind === "i" || producer.inner) return;
    const [start, next] = [flow.points[0], flow.points[1]];
    const text = flow.count > 1 ? `× ${flow.count}` : flow.first ? this.style.shape(flow.source) : "";
    if (!text) return;
    labels.append(
      svg(
        "text",
        {
          class: `edge-shape${lit ? " lit" : ""}`,
          x: x + start.x + (this.sideways ? 5 : 5),
          y: y + (this.sideways ? start.y - 4 : (start.y + Math.max(start.y + 14, next.y)) / 2 + 4),
        },
        fitted(text, this.sideways ? SIDEWAYS_GAP - 10 : 150, SMALL_LETTER),
      ),
    );
  }

  #path(/** @type {Point[]} */ points, /** @type {number} */ x, /** @type {number} */ y) {
    const n = (/** @type {number} */ value) => value.toFixed(1);
    let path = `M${n(points[0].x + x)} ${n(points[0].y + y)}`;
    for (let each = 1; each < points.length; each += 1) {
      const [a, b] = [points[each - 1], points[each]];
      // a segment without a length has no direction for the arrow
      if (Math.abs(a.x - b.x) + Math.abs(a.y - b.y) < 0.5) continue;
      const [end, straight] = [
        `${n(b.x + x)} ${n(b.y + y)}`,
        Math.abs(this.sideways ? a.y - b.y : a.x - b.x) < 0.5,
      ];
      if (straight) path += `L${end}`;
      else if (this.sideways) {
        const middle = n((a.x + b.x) / 2 + x);
        path += `C${middle} ${n(a.y + y)} ${middle} ${n(b.y + y)} ${end}`;
      } else {
        const middle = n((a.y + b.y) / 2 + y);
        path += `C${n(a.x + x)} ${middle} ${n(b.x + x)} ${middle} ${end}`;
      }
    }
    return path;
  }

  #isLit(/** @type {Composed} */ composed, /** @type {Flow} */ flow) {
    const targets = this.style.lit?.get(flow.source);
    if (!targets) return false;
    const { kind, key } = composed.items[flow.reader];
    for (const target of targets) {
      if (
        kind === "n"
          ? key === target
          : kind === "c"
            ? this.clusters.holds(key, target)
            : !this.clusters.holds(composed.cluster, target)
      )
        return true;
    }
    return false;
  }

  #item(
    /** @type {Element} */ group,
    /** @type {Item} */ item,
    /** @type {number} */ x,
    /** @type {number} */ y,
    /** @type {number} */ depth,
  ) {
    const strip = item.names.length ? STRIP : 0;
    const [top, height] = [y + strip, item.height - strip];
    if (strip && this.scale >= LABELS_FROM) this.#names(group, item, x, y);
    if (!item.inner) {
      group.append(this.#box(item, x, top, height));
      return;
    }
    const isBlock = Math.min(item.width, height) * this.scale < BLOCK_BELOW;
    group.append(this.#frame(item, x, top, height, depth, isBlock));
    if (!isBlock) this.#content(group, item.inner, x, top, depth + 1);
  }

  /** The names of values that come from far away, above their reader. */
  #names(/** @type {Element} */ group, /** @type {Item} */ item, /** @type {number} */ x, /** @type {number} */ y) {
    const sources = item.names;
    const more = sources.length > 1 ? ` +${sources.length - 1}` : "";
    const text = fitted(`from ${this.style.valueName(sources[0])}${more}`, Math.max(item.width, 70), SMALL_LETTER);
    const lit = sources.some((source) => this.style.lit?.has(source));
    const width = text.length * SMALL_LETTER + 10;
    const middle = item.inner?.ins.get(sources[0]);
    const left = middle === undefined || this.sideways ? x : Math.max(x, x + middle - width / 2);
    group.append(
      svg(
        "g",
        { class: `port${lit ? " lit" : ""}`, "data-jump": sources[0] },
        svg(
          "title",
          {},
          `${sources.length > 1 ? `${sources.length} values` : "A value"} from far away; click to go there`,
        ),
        svg("rect", { x: left, y: y + 1, width, height: STRIP - 4, rx: 6 }),
        svg("text", { x: left + 5, y: y + 10.5 }, text),
      ),
    );
  }

  #classes(/** @type {Item} */ item, /** @type {string} */ base) {
    const id = item.kind + item.key;
    const { category: kind } = this.style.paint(item.kind, item.key);
    const mark = this.style.mark(item.kind, item.key);
    return [
      base,
      kindClass(kind),
      mark && `mark-${mark}`,
      id === this.style.selected && "selected",
      this.style.found.has(id) && "found",
    ]
      .filter(Boolean)
      .join(" ");
  }

  #box(/** @type {Item} */ item, /** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ height) {
    const [title, detail] = this.style.label(item.kind, item.key);
    const { share } = this.style.paint(item.kind, item.key);
    const isCluster = item.kind === "c";
    const round = ["input", "output"].includes(this.style.paint(item.kind, item.key).category) ? 14 : 5;
    const box = svg("g", {
      class: this.#classes(item, isCluster ? "node-box cluster" : "node-box"),
      "data-item": item.kind + item.key,
    });
    if (isCluster && this.scale > 0.2)
      box.append(svg("rect", { class: "behind", x: x + 3, y: y + 3, width: item.width, height, rx: round }));
    const body = svg("rect", { class: "body", x, y, width: item.width, height, rx: round });
    if (share !== null) body.style.setProperty("--share", `${Math.round(share * 100)}%`);
    if (share !== null) body.classList.add("shaded");
    box.append(body);
    if (!isCluster && share === null && round === 5) {
      box.append(
        svg("path", { class: "stripe", d: `M${x + 5} ${y}h-1a4 4 0 0 0 -4 4v${height - 8}a4 4 0 0 0 4 4h1z` }),
      );
    }
    box.append(svg("title", {}, [title, detail].map(visible).join("\n").slice(0, LONGEST_TIP)));
    const sign = SIGNS[this.style.mark(item.kind, item.key)];
    if (sign && this.scale >= LABELS_FROM) {
      box.append(
        svg(
          "g",
          { class: "sign", transform: `translate(${x + item.width - 3} ${y + 2})` },
          svg("circle", { r: 7 }),
          svg("text", { y: 3.6, "text-anchor": "middle" }, sign.trim()),
        ),
      );
    }
    if (this.scale >= LABELS_FROM) {
      const room = item.width - (isCluster ? 38 : 18);
      const both = detail && this.scale >= DETAILS_FROM;
      const shortest = isCluster ? lastFitting(detail, room) : firstFitting(detail, room);
      box.append(
        svg("text", { class: "title", x: x + 11, y: y + (both ? 15.5 : 22) }, fitted(title, room, LETTER)),
      );
      if (both)
        box.append(svg("text", { class: "detail", x: x + 11, y: y + 28.5 }, fitted(shortest, room, SMALL_LETTER)));
      if (isCluster) box.append(this.#toggle(item, x + item.width - 15, y + height / 2, "M-4 0H4M0 -4V4", "Open"));
    }
    return box;
  }

  #frame(
    /** @type {Item} */ item,
    /** @type {number} */ x,
    /** @type {number} */ y,
    /** @type {number} */ height,
    /** @type {number} */ depth,
    /** @type {boolean} */ isBlock,
  ) {
    const [title, detail] = this.style.label("c", item.key);
    const frame = svg(
      "g",
      {
        class: this.#classes(item, `frame depth-${depth % 2}${isBlock ? " block" : ""}`),
        "data-item": `c${item.key}`,
      },
      svg("rect", { class: "body", x, y, width: item.width, height, rx: 7 }),
    );
    if (isBlock) return frame;
    // far away, the name of a large cluster is as large as the screen needs
    const size = Math.min(Math.max(11, 11 / this.scale), item.width / 8, 60);
    const letters = this.scale < LABELS_FROM ? size * 0.58 : LETTER;
    if (this.scale >= LABELS_FROM) {
      const both = detail ? `${title}  ${detail}` : title;
      const room = item.width - 36;
      const name = svg("text", { class: "title", x: x + 10, y: y + 17 }, fitted(title, room, letters));
      if (both.length * LETTER < room) name.append(svg("tspan", { class: "detail", dx: 7 }, visible(detail)));
      frame.append(name, this.#toggle(item, x + item.width - 15, y + 13, "M-4 0H4", "Close"));
    } else if (size * this.scale >= 9) {
      frame.append(
        svg(
          "text",
          { class: "title far", x: x + 6, y: y + size, "font-size": size },
          fitted(title, item.width - 12, letters),
        ),
      );
    }
    return frame;
  }

  #toggle(
    /** @type {Item} */ item,
    /** @type {number} */ x,
    /** @type {number} */ y,
    /** @type {string} */ sign,
    /** @type {string} */ verb,
  ) {
    return svg(
      "g",
      { class: "toggle", "data-toggle": item.key, transform: `translate(${x} ${y})` },
      svg("title", {}, `${verb} ${this.style.label("c", item.key)[0]}`),
      svg("circle", { r: 13, class: "touch" }),
      svg("circle", { r: 7.5 }),
      svg("path", { d: sign }),
    );
  }
}

/** The parts of a line that fit, from its start; at least one. */
function firstFitting(/** @type {string} */ line, /** @type {number} */ room) {
  const parts = line.split(" · ");
  while (parts.length > 1 && parts.join(" · ").length * SMALL_LETTER > room) parts.pop();
  return parts.join(" · ");
}

/** All of a line, or its last part, which is a count. */
function lastFitting(/** @type {string} */ line, /** @type {number} */ room) {
  return line.length * SMALL_LETTER <= room ? line : (line.split(" · ").pop() ?? line);
}
