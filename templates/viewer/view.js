// Which part of the drawing is on the screen: pan, zoom and pinch, by pointer, wheel and keys.

class View {
  /**
   * @param {SVGSVGElement} element
   * @param {() => void} changed called after every change
   */
  constructor(element, changed) {
    this.element = element;
    this.changed = changed;
    this.x = 0;
    this.y = 0;
    this.scale = 1; // pixels per point
    /** @type {Map<number, PointerEvent>} */ this.pointers = new Map();
    this.moved = false;
    this.wheelZooms = false; // without a key: where the page itself does not scroll
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) {
      element.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
  }

  get width() {
    return this.element.clientWidth || 800;
  }

  get height() {
    return this.element.clientHeight || 500;
  }

  /** @returns {Area} what is seen, in points */
  area(margin = 0) {
    const [width, height] = [this.width / this.scale, this.height / this.scale];
    return {
      left: this.x - margin * width,
      top: this.y - margin * height,
      right: this.x + (1 + margin) * width,
      bottom: this.y + (1 + margin) * height,
    };
  }

  apply() {
    this.element.setAttribute(
      "viewBox",
      `${this.x} ${this.y} ${this.width / this.scale} ${this.height / this.scale}`,
    );
    this.changed();
  }

  panBy(/** @type {number} */ dx, /** @type {number} */ dy) {
    this.x += dx / this.scale;
    this.y += dy / this.scale;
    this.apply();
  }

  /** Zoom around a place of the element, in pixels. */
  zoomBy(/** @type {number} */ factor, px = this.width / 2, py = this.height / 2) {
    const scale = Math.min(3, Math.max(this.least ?? 0.01, this.scale * factor));
    this.x += px / this.scale - px / scale;
    this.y += py / this.scale - py / scale;
    this.scale = scale;
    this.apply();
  }

  fit(/** @type {number} */ width, /** @type {number} */ height) {
    this.least = Math.min(0.2, (0.5 * this.width) / width, (0.5 * this.height) / height);
    this.scale = Math.min(1.25, this.width / (width + 24), this.height / (height + 24));
    this.x = width / 2 - this.width / this.scale / 2;
    this.y = height / 2 - this.height / this.scale / 2;
    this.apply();
  }

  /** From the start of the flow, in a size that can be read. */
  start(
    /** @type {number} */ width,
    /** @type {number} */ height,
    /** @type {boolean} */ sideways,
    /** @type {number} */ middle,
  ) {
    this.fit(width, height);
    if (this.scale >= 0.7) return;
    this.scale = Math.max(0.7, Math.min(1, sideways ? this.height / (height + 24) : this.width / (width + 24)));
    /** The first boxes are in the middle, but no margin is wider than needed. */
    const place = (/** @type {number} */ room, /** @type {number} */ size) =>
      size <= room ? size / 2 - room / 2 : Math.max(-12, Math.min(middle - room / 2, size + 12 - room));
    this.x = sideways ? -12 : place(this.width / this.scale, width);
    this.y = sideways ? place(this.height / this.scale, height) : -12;
    this.apply();
  }

  /** Bring a box into the middle, without the lowest `covered` pixels, if it is not seen or too small. */
  reveal(/** @type {Box} */ box, covered = 0) {
    const area = this.area(-0.08);
    const seen =
      box.x >= area.left &&
      box.x + box.width <= area.right &&
      box.y >= area.top &&
      box.y + Math.min(box.height, 200) <= area.bottom - covered / this.scale;
    if (seen && this.scale >= LABELS_FROM) return;
    this.scale = Math.max(this.scale, 0.8);
    this.x = box.x + box.width / 2 - this.width / this.scale / 2;
    const free = (this.height - covered) / this.scale;
    this.y = box.y + Math.min(box.height, free / 2) / 2 - free / 2;
    this.apply();
  }

  #wheel(/** @type {WheelEvent} */ event) {
    if (!this.wheelZooms && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = this.element.getBoundingClientRect();
    const speed = event.ctrlKey && Math.abs(event.deltaY) < 40 ? 0.01 : 0.0016; // a pinch on a touchpad is small
    this.zoomBy(
      Math.exp(-Math.max(-300, Math.min(300, event.deltaY)) * speed),
      event.clientX - box.left,
      event.clientY - box.top,
    );
  }

  #down(/** @type {PointerEvent} */ event) {
    if (event.button !== 0) return;
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size === 1) this.moved = false;
  }

  #move(/** @type {PointerEvent} */ event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers.values()].filter((each) => each.pointerId !== event.pointerId);
    if (!this.moved && Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY) < 4) return;
    if (!this.moved) this.element.setPointerCapture(event.pointerId);
    this.moved = true;
    this.pointers.set(event.pointerId, event);
    if (others.length) {
      const [other] = others;
      const distance = (/** @type {PointerEvent} */ each) =>
        Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY);
      const box = this.element.getBoundingClientRect();
      this.zoomBy(
        distance(event) / Math.max(1, distance(before)),
        (event.clientX + other.clientX) / 2 - box.left,
        (event.clientY + other.clientY) / 2 - box.top,
      );
    }
    const share = others.length ? 2 : 1;
    this.panBy((before.clientX - event.clientX) / share, (before.clientY - event.clientY) / share);
  }
}
