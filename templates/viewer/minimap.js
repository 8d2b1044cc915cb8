// The whole drawing in small, with the part that is seen; a click moves there.

class Minimap {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {View} view
   */
  constructor(canvas, view) {
    this.canvas = canvas;
    this.view = view;
    /** @type {Composed | null} */ this.composed = null;
    /** @type {ImageData | null} */ this.picture = null;
    const go = (/** @type {PointerEvent} */ event) => {
      if (!event.buttons || !this.composed) return;
      const box = canvas.getBoundingClientRect();
      this.view.x = (event.clientX - box.left) / this.scale - this.view.width / this.view.scale / 2;
      this.view.y = (event.clientY - box.top) / this.scale - this.view.height / this.view.scale / 2;
      this.view.apply();
    };
    canvas.addEventListener("pointerdown", go);
    canvas.addEventListener("pointermove", go);
  }

  get scale() {
    const { width, height } = /** @type {Composed} */ (this.composed);
    return Math.min(150 / width, 150 / height);
  }

  /** Draw the boxes again. */
  update(/** @type {Composed} */ composed) {
    this.composed = composed;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.max(8, composed.width * this.scale), Math.max(8, composed.height * this.scale)];
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    if (!context) return;
    context.scale(ratio, ratio);
    const style = getComputedStyle(this.canvas);
    const draw = (
      /** @type {Composed} */ each,
      /** @type {number} */ x,
      /** @type {number} */ y,
      /** @type {number} */ depth,
    ) => {
      for (const item of each.items) {
        if (isPort(item)) continue;
        const [w, h] = [item.width * this.scale, item.height * this.scale];
        const [left, top] = [x + item.x, y + item.y];
        context.globalAlpha = item.inner ? 0.12 : 0.5;
        context.fillRect(left * this.scale, top * this.scale, Math.max(w, 0.7), Math.max(h, 0.7));
        if (item.inner && Math.max(w, h) > 5) draw(item.inner, left, top, depth + 1);
      }
    };
    context.fillStyle = style.color;
    draw(composed, 0, 0, 0);
    this.picture = context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    this.frame();
  }

  /** Move the frame around the part that is seen. */
  frame() {
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    if (!context || !this.picture || !this.composed) return;
    const area = this.view.area();
    const { width, height } = this.composed;
    this.canvas.hidden = area.left <= 0 && area.top <= 0 && area.right >= width && area.bottom >= height;
    context.putImageData(this.picture, 0, 0);
    context.globalAlpha = 1;
    context.strokeStyle = getComputedStyle(this.canvas).outlineColor;
    context.lineWidth = 1.5;
    const [x, y] = [Math.max(0.75, area.left * this.scale), Math.max(0.75, area.top * this.scale)];
    const right = Math.min(width * this.scale - 0.75, area.right * this.scale);
    const bottom = Math.min(height * this.scale - 0.75, area.bottom * this.scale);
    context.strokeRect(x, y, Math.max(3, right - x), Math.max(3, bottom - y));
  }
}
