"use strict";
// One plot of curves, drawn again from the data in its <metadata> when settings change, and its
// read-out. curves.js makes the tools around it. Rules and looks are those of reportgen.charts.
const curvePlots = (() => {
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const shape = (name, attributes = {}, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  // ---- numbers and ticks, as reportgen.charts.axes writes them -------------------------------
  const fixed = (pixel) => pixel.toFixed(1);
  const minus = (text) => text.replace(/^-/, "−");
  const scientific = (value, places) =>
    minus(value.toExponential(places).replace(/\.?0+e/, "e").replace("e+", "e"));
  const grouped = (value, least, most) =>
    minus(value.toLocaleString("en-US", { minimumFractionDigits: least, maximumFractionDigits: most }));
  const formatStep = (value) => grouped(value, 0, 3);
  const formatValue = (value, digits = 5) => {
    const size = Math.abs(value);
    if (value !== 0 && (size < 1e-3 || size >= 1e6)) return scientific(value, digits - 1);
    if (size >= 10 ** (digits - 1)) return grouped(value, 0, 0);
    return minus(value.toLocaleString("en-US", { maximumSignificantDigits: digits }));
  };
  const formatDuration = (seconds) => {
    if (seconds < 60) return `${formatStep(Number(seconds.toFixed(seconds < 10 ? 1 : 0)))} s`;
    const whole = Math.round(seconds);
    const parts = [
      [Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"],
      [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"],
    ];
    const first = parts.findIndex(([count]) => count);
    return parts.slice(first, first + 2).filter(([count]) => count).map((part) => part.join(" ")).join(" ");
  };
  const formatDate = (seconds, parts) => new Date(seconds * 1000).toLocaleString("en-US", parts);
  const minuteOf = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const dayOf = { month: "short", day: "numeric" };

  const multiples = (step, low, high) => {
    const found = [];
    for (let index = Math.ceil(low / step - 1e-9); index <= high / step + 1e-9; index += 1) {
      found.push(Number((index * step).toPrecision(12)));
    }
    return found;
  };
  const tickLabel = (tick, largest, step) => {
    if (tick === 0) return "0";
    if (largest < 1e-3 || largest >= 1e15) return scientific(tick, 4);
    const units = largest < 1e4 ? [] : [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
    const unit = units.find(([size]) => largest >= size && step >= size / 1000);
    if (unit) return grouped(tick / unit[0], 0, 3) + unit[1];
    const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return grouped(tick, places, places);
  };
  const linearTicks = (low, high, most) => {
    const power = 10 ** Math.floor(Math.log10((high - low) / most));
    const step = [1, 2, 5, 10].find((factor) => factor * power * most >= high - low) * power || 10 * power;
    const ticks = multiples(step, low, high);
    const largest = Math.max(...ticks.map(Math.abs));
    return ticks.map((tick) => [tick, tickLabel(tick, largest, step)]);
  };
  const logTicks = (low, high, most) => {
    let ticks = [];
    for (const factors of [[1], [1, 3], [1, 2, 5]]) {
      const powers = multiples(1, Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)));
      const all = powers.flatMap((power) => factors.map((factor) => Number(`${factor}e${power}`)));
      ticks = all.filter((tick) => tick >= low && tick <= high);
      if (ticks.length >= 3) break;
    }
    if (ticks.length < 2) return linearTicks(low, high, most);
    const every = Math.ceil(ticks.length / most);
    const label = (tick) => (tick >= 1e-3 && tick < 1e4 ? grouped(tick, 0, 3) : tickLabel(tick, tick, tick));
    return ticks.filter((_, index) => index % every === 0).map((tick) => [tick, label(tick)]);
  };
  const [minute, hour, day] = [60, 3600, 86400];
  const timeSteps = [
    1, 2, 5, 10, 30, minute, 2 * minute, 5 * minute, 10 * minute, 30 * minute, hour, 2 * hour, 4 * hour,
    6 * hour, 12 * hour, day, 2 * day, 7 * day, 30 * day, 365 * day,
  ];
  const timeTicks = (low, high, most, isWall) => {
    const step = timeSteps.find((size) => size * most >= high - low) ?? 3650 * day;
    // Wall time has its ticks at full hours of the reader's own clock.
    const shift = isWall ? new Date(low * 1000).getTimezoneOffset() * minute : 0;
    const parts = step >= day ? dayOf : { ...minuteOf, second: step < minute ? "2-digit" : undefined };
    const label = (tick) => (isWall ? formatDate(tick, parts) : formatDuration(tick));
    return multiples(step, low - shift, high - shift).map((tick) => [tick + shift, label(tick + shift)]);
  };

  // ---- data ----------------------------------------------------------------------------------
  // Settings that all plots share; curves.js sets them.
  // A line of one tag among several of its run is named "run · tag".
  const runOf = (line) => line?.name.split(" · ")[0] ?? "";
  const settings = { hidden: [], lines: "both", y: "auto", x: "step", outliers: false, large: [] };

  const decode = (metadata) => {
    const data = JSON.parse(metadata.textContent);
    const sums = (list) => {
      let sum = 0;
      return list.map((difference) => (sum += difference));
    };
    const xs = data.steps ? data.x.map(sums) : data.x;
    for (const line of data.lines) line.steps = xs[line.x];
    return data;
  };
  const interpolate = ([xs, values], x) => {
    let index = 1;
    while (index < xs.length - 1 && xs[index] < x) index += 1;
    if (xs.length < 2) return values[0];
    const share = (x - xs[index - 1]) / (xs[index] - xs[index - 1] || 1);
    return values[index - 1] + Math.max(0, Math.min(1, share)) * (values[index] - values[index - 1]);
  };
  // Where the x of a line lies on the chosen axis; null where the log has no such axis.
  const position = (line, mode, x) => {
    if (mode === "step") return x;
    if (mode === "epoch") return line.e ? interpolate(line.e, x) : null;
    if (!line.t) return null;
    return interpolate(line.t, x) + (mode === "wall" ? line.t0 : 0);
  };
  const smoothedAgain = (values) => {
    const factor = 0.5 ** (1 / Math.max(2, values.length / 20));
    let [sum, weight] = [0, 0];
    return values.map((value) => {
      if (value === null) return null;
      sum = factor * sum + (1 - factor) * value;
      weight = factor * weight + 1 - factor;
      return sum / weight;
    });
  };
  const nearest = (list, target) => {
    let [low, high] = [0, list.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle] < target) low = middle + 1;
      else high = middle;
    }
    return low > 0 && target - list[low - 1] < list[low] - target ? low - 1 : low;
  };

  // The rule of reportgen.charts.axes.robust_range, on the plotted points.
  const bulkOf = (list) => {
    const sorted = [...list].sort((a, b) => a - b);
    const drop = settings.outliers ? 0 : Math.floor(list.length / 100) || Number(list.length >= 8);
    return [sorted[drop], sorted[sorted.length - 1 - drop]];
  };
  const isLog = (values, low, high) => {
    if (settings.y !== "auto") return settings.y === "log" && high > 0;
    const median = [...values].sort((a, b) => a - b)[values.length >> 1];
    return low > 0 && high >= 100 * low && median <= low + 0.1 * (high - low);
  };
  const chooseRange = (lists, keep) => {
    const values = lists.flat();
    if (!values.length) return { low: 0, high: 1, log: false };
    const bulks = lists.filter((list) => list.length).map(bulkOf);
    let low = Math.min(...bulks.map((bulk) => bulk[0]), ...keep);
    let high = Math.max(...bulks.map((bulk) => bulk[1]), ...keep);
    const log = isLog(values, low, high);
    if (log && low <= 0) low = Math.min(high, ...values.filter((value) => value > 0));
    const scale = log ? Math.log10 : Number;
    const span = scale(high) - scale(low) || (log ? 0.3 : 0.5 * Math.abs(low)) || Infinity;
    const [floor, ceiling] = [scale(low) - 3 * span, scale(high) + 3 * span];
    const near = values.filter((value) => scale(value) >= floor && scale(value) <= ceiling);
    [low, high] = [Math.min(low, ...near), Math.max(high, ...near)];
    return padded(low, high, log);
  };
  const padded = (low, high, log) => {
    if (high - low <= 4e-7 * Math.max(Math.abs(low), Math.abs(high))) {
      const half = 0.5 * Math.abs(low) || 1;
      return { low: low - half, high: high + half, log: false };
    }
    if (log) return { low: low / (high / low) ** 0.05, high: high * (high / low) ** 0.05, log };
    const pad = 0.05 * (high - low);
    const fromZero = low >= 0 && low <= 4 * pad;
    return { low: fromZero ? (low > 0 ? 0 : -0.4 * pad) : low - pad, high: high + pad, log };
  };

  // ---- drawing -------------------------------------------------------------------------------
  const scalesOf = (area, low, high, range) => {
    const scale = range.log ? Math.log10 : Number;
    const [width, height] = [area.right - area.left, area.bottom - area.top];
    const span = scale(range.high) - scale(range.low);
    return {
      ...area, low, high, range,
      x: (value) => area.left + ((value - low) / (high - low)) * width,
      y: (value) => area.bottom - ((scale(value) - scale(range.low)) / span) * height,
      value: (pixel) => low + ((pixel - area.left) / width) * (high - low),
      holds: (x, value) => x >= low && x <= high && value >= range.low && value <= range.high,
    };
  };
  const seriesColor = (line) => line.c % 8;
  const dashOf = (role) => (role === "validation" ? { "stroke-dasharray": "5 3" } : {});
  const label = (x, y, text, anchor, kind = "muted") =>
    shape("text", { x: fixed(x), y: fixed(y), "text-anchor": anchor, class: `${kind} tick` }, text);

  const drawFrame = (body, scales, xTicks, yTicks, xTitle) => {
    const { left, right, bottom, x, y } = scales;
    const crisp = (pixel) => Math.floor(pixel) + 0.5;
    const grid = yTicks.map(([tick]) => `M${left} ${crisp(y(tick))}H${right}`);
    const ticks = xTicks.map(([tick]) => `M${crisp(x(tick))} ${bottom}v4`);
    body.append(shape("path", { class: "rule", d: grid.join("") }));
    body.append(shape("path", { class: "edge", d: `M${left} ${crisp(bottom)}H${right}${ticks.join("")}` }));
    let free = -Infinity;
    for (const [tick, text] of xTicks) {
      const half = 2.8 * text.length;
      if (x(tick) - half < free || x(tick) + half > right + 12) continue;
      free = x(tick) + half + 6;
      body.append(label(x(tick), bottom + 15, text, "middle"));
    }
    for (const [tick, text] of yTicks) body.append(label(left - 6, y(tick) + 3.5, text, "end"));
    body.append(label((left + right) / 2, bottom + 27, xTitle, "middle"));
  };

  const drawValidRange = (body, { left, right, top, bottom, y, range }, valid) => {
    const edges = [bottom, top];
    valid.forEach((limit, index) => {
      if (limit === null) return;
      const at = y(Math.min(Math.max(limit, range.low), range.high));
      const [from, to] = [Math.min(at, edges[index]), Math.max(at, edges[index])];
      body.append(shape("rect", { class: "invalid", x: left, y: from, width: right - left, height: to - from }));
    });
  };

  const drawReferences = (body, { left, right, y, range }, references) => {
    for (const [name, value] of references) {
      if (value < range.low || value > range.high) continue;
      const d = `M${left} ${fixed(y(value))}H${right}`;
      body.append(shape("path", { class: "rule", d, "stroke-dasharray": "6 3" }));
      body.append(label(right - 3, y(value) - 3, name.slice(0, 24), "end"));
    }
  };

  const drawVerticalMarks = (body, { top, bottom, low, high, x }, marks) => {
    const named = marks.length <= 12;
    for (const [name, at] of marks) {
      if (at < low || at > high) continue;
      const d = `M${fixed(x(at))} ${top}V${named ? bottom : top + 8}`;
      body.append(shape("path", { class: "rule", d, "stroke-dasharray": "2 3" }));
      if (named) body.append(label(x(at) + 3, top + 8, name.slice(0, 24), "start"));
    }
  };

  // Path data through the points of a line; null breaks it, a lone point is a dot.
  const pathOf = (xs, values, { x, y, range }) => {
    const shown = (index) => (values[index] ?? null) !== null && !(range.log && values[index] <= 0);
    return values.map((value, index) => {
      if (!shown(index)) return "";
      const starts = !shown(index - 1);
      const point = `${starts ? "M" : "L"}${fixed(x(xs[index]))} ${fixed(y(value))}`;
      return starts && !shown(index + 1) ? `${point}h0` : point;
    }).join("");
  };
  const dotsOf = (xs, values, { x, y, range }) => {
    const shown = (value) => value !== null && !(range.log && value <= 0);
    const dots = values.map((value, index) => [x(xs[index]), value]).filter(([, value]) => shown(value));
    return dots.map(([px, value]) => `M${fixed(px)} ${fixed(y(value))}h0`).join("");
  };
  const bandOf = (xs, line, scales) => {
    const inside = (value) => (value === null ? null : Math.max(value, scales.range.low));
    const lower = pathOf([...xs].reverse(), [...line.lo].reverse().map(inside), scales);
    return `${pathOf(xs, line.hi.map(inside), scales)}${lower.replace("M", "L")}z`;
  };

  const drawCurve = (body, { line, xs }, scales) => {
    const group = shape("g", { class: line.faded ? "curve faded" : `curve l${seriesColor(line)}` });
    const add = (d, width, more = {}) => group.append(shape("path", { d, "stroke-width": width, ...more }));
    if (line.lo && line.hi) {
      group.append(shape("path", { class: `band s${seriesColor(line)}`, d: bandOf(xs, line, scales) }));
    }
    const smooth = { raw: null, strong: smoothedAgain(line.y) }[settings.lines] ?? line.s ?? null;
    const over = settings.lines === "raw" ? null : smooth;
    const few = line.y.filter((value) => value !== null).length <= 30;
    if (over && settings.lines !== "smoothed") add(pathOf(xs, line.y, scales), 1, { "stroke-opacity": 0.35 });
    const width = line.faded ? 1.2 : few ? 1.3 : 1.8;
    add(pathOf(xs, over ?? line.y, scales), width, dashOf(line.role));
    if (few) add(dotsOf(xs, line.y, scales), 4, { "stroke-opacity": over ? 0.5 : 1 });
    body.append(group);
  };

  // The last value of a line, and its best with a label where no other label is.
  const drawExtremes = (body, { line, xs }, scales, mode, labels) => {
    if (line.faded) return;
    const place = ([at, value]) => [position(line, mode, at), value];
    const inside = (point) => point && scales.holds(...place(point));
    const circle = (kind, [at, value], r) => shape("circle", {
      class: `${kind}${seriesColor(line)}`, cx: fixed(scales.x(at)), cy: fixed(scales.y(value)), r,
    });
    if (inside(line.last)) body.append(circle("s", place(line.last), 2.6));
    if (!inside(line.best)) return;
    body.append(circle("ring l", place(line.best), 3.6));
    const [at, value] = place(line.best);
    const px = Math.min(scales.right - 16, Math.max(scales.left + 16, scales.x(at)));
    const above = scales.y(value) - 8;
    const py = above > scales.top + 4 ? above : above + 23;
    if (labels.some(([x, y]) => Math.abs(x - px) < 46 && Math.abs(y - py) < 13)) return;
    labels.push([px, py]);
    body.append(label(px, py, formatValue(value, 4), "middle", "ink"));
  };

  // The first and last of each group of sorted pixels that are less than `gap` apart.
  const merged = (pixels, gap) => {
    const groups = [];
    for (const pixel of pixels) {
      if (groups.length && pixel - groups.at(-1)[1] < gap) groups.at(-1)[1] = pixel;
      else groups.push([pixel, pixel]);
    }
    return groups;
  };
  const triangle = (x, y, size) =>
    `M${fixed(x)} ${y}l${0.6 * Math.abs(size)} ${size}h${-1.2 * Math.abs(size)}z`;

  // Triangles for points outside the range and for infinities, crosses for NaN.
  const drawEdgeMarks = (body, { line, xs }, scales, mode) => {
    const { top, bottom, low, high, range, x } = scales;
    const add = (kind, d) => d && body.append(shape("path", { class: kind, d }));
    const visible = (positions) => positions.filter((at) => at >= low && at <= high).map(x);
    const outside = (test) => visible(xs.filter((_, index) => line.y[index] !== null && test(line.y[index])));
    const lost = (kind) => visible((line.nf ?? []).filter((point) => point[1] === kind)
      .map(([at]) => position(line, mode, at)));
    const tips = (pixels, at, size) => merged(pixels, 6).map(([first]) => triangle(first, at, size)).join("");
    const color = line.faded ? "faded-dot" : `s${seriesColor(line)}`;
    add(color, tips(outside((value) => value > range.high), top, 5));
    add(color, tips(outside((value) => value < range.low), bottom, -5));
    add("bad", tips(lost("inf"), top, 7) + tips(lost("-inf"), bottom, -7));
    const cross = ([first, last]) =>
      `M${fixed(first - 3.5)} ${bottom - 3.5}l7 7m0-7l-7 7M${fixed(first)} ${bottom}H${fixed(last)}`;
    add("alarm", merged(lost("nan"), 8).map(cross).join(""));
  };

  // The legend; returns where it ends.
  const drawLegend = (body, lines, left, width, top) => {
    const entries = new Map();
    for (const line of lines) {
      const color = line.faded ? "faded" : `l${seriesColor(line)}`;
      if (line.name) entries.set(`${line.name} ${color}`, [line.name, color, ""]);
    }
    const oneColor = lines.every((line) => line.c === lines[0].c);
    const roles = new Set(lines.map((line) => line.role).filter((role) => role !== "none"));
    for (const role of roles.size > 1 ? ["train", "validation"] : []) {
      entries.set(`role ${role}`, [role, oneColor ? `l${seriesColor(lines[0])}` : "edge", role]);
    }
    let [x, y] = [left, top + 12];
    for (const [name, color, role] of [...entries.values()].slice(0, 12)) {
      const short = name.length > 36 ? `…${name.slice(-35)}` : name;
      const room = 43 + 6.2 * short.length;
      if (x + room > width && x > left) [x, y] = [left, y + 17];
      body.append(shape("path", { class: `sample ${color}`, d: `M${x} ${y - 4}h22`, ...dashOf(role) }));
      body.append(shape("text", { x: x + 28, y, class: "muted" }, short));
      x += room;
    }
    return entries.size ? y + 8 : top;
  };

  // Notes in as few lines as they fit into; returns where they end.
  const drawNotes = (body, notes, left, width, top) => {
    const lines = [];
    for (const note of notes) {
      const joined = lines.length ? `${lines.at(-1)} · ${note}` : note;
      if (lines.length && 5.6 * joined.length <= width - left) lines[lines.length - 1] = joined;
      else lines.push(note);
    }
    lines.forEach((line, row) => body.append(label(left, top + 11 + 15 * row, line, "start")));
    return top + (lines.length ? 4 + 15 * lines.length : 0);
  };

  // ---- one plot ------------------------------------------------------------------------------
  const axisNames = { epoch: "epoch", relative: "time since the start", wall: "wall time" };
  const lostNames = { nan: "NaN", inf: "Inf", "-inf": "−Inf" };
  const lostNote = (series, xTitle) => {
    const points = series.flatMap(({ line }) => line.nf ?? []);
    if (!points.length) return [];
    const kinds = Object.keys(lostNames).filter((kind) => points.some((point) => point[1] === kind));
    const names = kinds.map((kind) => lostNames[kind]).join(" and ");
    const count = series.reduce((sum, { line }) => sum + Math.max(line.nf?.length ?? 0, line.nfc ?? 0), 0);
    const first = `${xTitle} ${formatStep(Math.min(...points.map(([x]) => x)))}`;
    return [count === 1 ? `${names} at ${first}` : `${formatStep(count)} points ${names}, first at ${first}`];
  };
  const readOut = element("div", { className: "read-out", hidden: true });
  readOut.setAttribute("aria-live", "polite");

  class Plot {
    constructor(figure, index) {
      this.figure = figure;
      this.clip = `clip-${index}`;
      this.title = figure.dataset.title ?? "";
      this.id = figure.id || `${this.title} ${index}`;
      this.original = figure.querySelector("svg");
      this.metadata = this.original?.querySelector("metadata") ?? null;
      this.svg = this.original;
      this.visible = false; // near the window
      this.zoom = null; // { mode, range } of the x axis
    }

    get data() {
      this.decoded ??= decode(this.metadata);
      return this.decoded;
    }

    get isLarge() { return settings.large.includes(this.id); }
    get isSparkline() { return Boolean(this.data.spark) && !this.isLarge; }
    get lines() {
      return this.data.lines.filter((line) => line.steps.length && !settings.hidden.includes(runOf(line)));
    }


    // The chosen x axis, or the one of the log where no line has it.
    get mode() {
      const has = (line) => position(line, settings.x, line.steps[0]) !== null;
      return this.lines.some(has) ? settings.x : "step";
    }

    // Whether the vertical range is the one the picture came with.
    get hasOwnRange() {
      return settings.y === "auto" && !settings.outliers && !this.zoom && !settings.hidden.length;
    }

    // Each visible line with its positions on the chosen axis.
    get series() {
      const { mode } = this;
      const drawn = this.lines.filter((line) => position(line, mode, line.steps[0]) !== null);
      return drawn.map((line) => ({ line, xs: line.steps.map((x) => position(line, mode, x)) }));
    }

    // Draws again what the settings have changed; a plot at its defaults is the picture as it came.
    update() {
      if (!this.metadata) return;
      const plain = this.hasOwnRange && settings.lines === "both" && settings.x === "step";
      if (this.isSparkline || (plain && !this.isLarge)) {
        this.scales = null;
        this.drawn = "";
        this.show(this.original);
        if (this.isSparkline) this.hideLines();
        return;
      }
      const key = JSON.stringify([{ ...settings, large: this.isLarge }, this.zoom, this.figure.clientWidth]);
      if (key === this.drawn) return;
      this.drawn = key;
      this.show(this.draw());
    }

    show(svg) {
      svg.setAttribute("tabindex", "0");
      svg.setAttribute("role", this.isSparkline ? "button" : "img");
      if (svg === this.svg) return;
      const focused = this.svg === document.activeElement;
      this.svg.replaceWith(svg);
      this.svg = svg;
      if (focused) svg.focus({ preventScroll: true });
    }

    hideLines() {
      this.original.querySelectorAll(":scope > g").forEach((group, index) => {
        group.classList.toggle("off", settings.hidden.includes(runOf(this.data.lines[index])));
      });
    }

    draw() {
      const { mode, series, data } = this;
      const width = this.isLarge ? Math.max(320, Math.min(1100, this.figure.clientWidth)) : 360;
      const height = width > 500 ? 320 : 196;
      const [low, high] = this.horizontal(series, mode);
      const range = this.vertical(series, low, high);
      const yTicks = (range.log ? logTicks : linearTicks)(range.low, range.high, height > 250 ? 7 : 5);
      const longest = Math.max(0, ...yTicks.map(([, text]) => text.length));
      const left = Math.max(40, 10 + Math.ceil(5.6 * longest));
      const area = { left, right: width - 12, top: 10, bottom: height - 30 };
      const scales = scalesOf(area, low, high, range);
      this.scales = scales;
      const most = width > 500 ? 9 : 5;
      const isTime = mode === "relative" || mode === "wall";
      const xTicks = isTime ? timeTicks(low, high, most, mode === "wall") : linearTicks(low, high, most);

      const body = shape("g");
      drawValidRange(body, scales, data.valid ?? []);
      drawFrame(body, scales, xTicks, yTicks, axisNames[mode] ?? data.x_title);
      if (mode === "step") drawVerticalMarks(body, scales, data.marks ?? []);
      drawReferences(body, scales, data.references ?? []);
      const inside = shape("g", { "clip-path": `url(#${this.clip})` });
      for (const each of series) drawCurve(inside, each, scales);
      body.append(inside);
      const labels = [];
      const isValidation = ({ line }) => Number(line.role === "validation");
      const validationFirst = [...series].sort((a, b) => isValidation(b) - isValidation(a));
      for (const each of series) drawEdgeMarks(body, each, scales, mode);
      for (const each of validationFirst) drawExtremes(body, each, scales, mode, labels);
      const end = drawLegend(body, series.map(({ line }) => line), area.left, width, height);
      const total = drawNotes(body, this.notes(series, scales, mode), area.left, width, end) + 4;
      return this.wrap(body, width, total, area);
    }

    wrap(body, width, height, { left, right, top, bottom }) {
      const box = { viewBox: `0 0 ${width} ${height}`, width, height };
      const svg = shape("svg", { class: "chart live", "aria-label": this.data.title, ...box });
      const clip = shape("clipPath", { id: this.clip });
      clip.append(shape("rect", { x: left, y: top, width: right - left, height: bottom - top }));
      svg.append(clip, body);
      return svg;
    }

    horizontal(series, mode) {
      if (this.zoom?.mode === mode) return this.zoom.range;
      const lost = ({ line }) => (line.nf ?? []).map(([at]) => position(line, mode, at));
      const ends = series.flatMap((each) => [each.xs[0], each.xs.at(-1), ...lost(each)]);
      const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
      const pad = 0.015 * (high - low) || 0.5 * (Math.abs(low) || 1);
      return [low - pad, high + pad];
    }

    vertical(series, low, high) {
      if (this.hasOwnRange) return { low: this.data.y[0], high: this.data.y[1], log: Boolean(this.data.y[2]) };
      const within = ({ line, xs }) =>
        line.y.filter((value, index) => value !== null && xs[index] >= low && xs[index] <= high);
      const kept = series.flatMap(({ line }) => [line.best, line.last].filter(Boolean));
      return chooseRange(series.map(within), this.zoom ? [] : kept.map(([, value]) => value));
    }

    notes(series, { low, high, range }, mode) {
      const { data } = this;
      const notes = range.log ? ["log scale"] : [];
      const isOutside = (value) => value !== null && (value < range.low || value > range.high);
      const plotted = series.map(({ line, xs }) =>
        line.y.filter((value, index) => isOutside(value) && xs[index] >= low && xs[index] <= high).length);
      const count = this.hasOwnRange ? data.outside ?? 0 : plotted.reduce((a, b) => a + b, 0);
      const ends = [["max", data.highest], ["min", data.lowest]].filter(([, point]) => point && this.hasOwnRange);
      const far = ends.map(([name, [x, value]]) =>
        `${name} ${formatValue(value, 4)} at ${data.x_title} ${formatStep(x)}`);
      const outside = `${formatStep(count)} ${count === 1 ? "point" : "points"} outside`;
      if (count) notes.push([outside, ...far.slice(0, 1)].join(", "), ...far.slice(1));
      notes.push(...lostNote(series, data.x_title));
      if (settings.lines === "strong") notes.push("smoothed again, of the plotted points");
      if (data.thinned) notes.push("few of the points; the CSV file has all");
      const missing = { epoch: "epochs", relative: "times", wall: "times" };
      if (settings.x !== mode) notes.push(`the log has no ${missing[settings.x]}`);
      return notes;
    }

    // ---- read-out
    // The picture that came with the page says where its axes are.
    get shownScales() {
      if (this.scales) return this.scales;
      const [left, right, top, bottom, low, high] = this.data.area;
      const [least, most, log] = this.data.y;
      return scalesOf({ left, right, top, bottom }, low, high, { low: least, high: most, log: Boolean(log) });
    }

    readOutAt(px, py) {
      const scales = this.shownScales;
      const distance = ({ line, xs, index }) => {
        const value = line.y[index];
        const down = value === null ? 1e6 : scales.y(value) - py;
        return Math.hypot(scales.x(xs[index]) - px, down);
      };
      const points = this.pointsAt(scales.value(px)).map((point) => [distance(point), point]);
      points.sort((a, b) => a[0] - b[0]);
      if (points.length) this.readOut(points.map(([, point]) => point));
    }

    // The point of each line that is nearest to an x, of those in view.
    pointsAt(x) {
      const { low, high } = this.shownScales;
      const points = this.series.map(({ line, xs }) => ({ line, xs, index: nearest(xs, x) }));
      return points.filter(({ xs, index }) => xs[index] >= low && xs[index] <= high);
    }

    // Shows the first of `points` and below it the others.
    readOut(points) {
      const [first] = points;
      this.cursor = first;
      this.drawCursor(points);
      const rows = points.slice(0, 8).map((point) => this.row(point, point === first));
      const about = (textContent) => element("p", { className: "about", textContent });
      const more = points.length > 8 ? [about(`and ${points.length - 8} more`)] : [];
      readOut.replaceChildren(about(this.about(first)), ...rows, ...more);
      readOut.hidden = false;
      this.placeReadOut(this.shownScales.x(first.xs[first.index]));
    }

    drawCursor(points) {
      const scales = this.shownScales;
      const px = scales.x(points[0].xs[points[0].index]);
      this.overlay?.remove();
      this.overlay = shape("g", { class: "cursor" });
      this.overlay.append(shape("path", { class: "edge", d: `M${fixed(px)} ${scales.top}V${scales.bottom}` }));
      for (const { line, xs, index } of points) {
        const value = line.y[index];
        if (value === null || !scales.holds(xs[index], value)) continue;
        const at = { cx: fixed(scales.x(xs[index])), cy: fixed(scales.y(value)) };
        const r = line === points[0].line ? 4.5 : 3;
        this.overlay.append(shape("circle", { class: `s${seriesColor(line)} seam`, ...at, r }));
      }
      this.svg.append(this.overlay);
    }

    about({ line, index }) {
      const step = line.steps[index];
      const parts = [`${this.data.x_title} ${formatStep(step)}`];
      if (line.e && this.data.x_title !== "epoch") parts.push(`epoch ${grouped(interpolate(line.e, step), 0, 2)}`);
      if (line.t) {
        const seconds = interpolate(line.t, step);
        parts.push(`${formatDuration(seconds)} (${formatDate(line.t0 + seconds, { ...dayOf, ...minuteOf })})`);
      }
      return parts.join(" · ");
    }

    row({ line, index }, isFirst) {
      const lost = (line.nf ?? []).find(([x]) => x === line.steps[index]);
      const [value, smooth] = [line.y[index], line.s?.[index] ?? null];
      let text = value === null ? lostNames[lost?.[1]] ?? "NaN or Inf" : formatValue(value);
      if (value !== null && smooth !== null) text += ` (${formatValue(smooth)})`;
      const first = this.cursor.line.steps[this.cursor.index];
      if (line.steps[index] !== first) text += ` at ${formatStep(line.steps[index])}`;
      const name = [line.name, line.role === "none" ? "" : line.role].filter(Boolean).join(" ");
      return element("p", { className: isFirst ? "line first" : "line" },
        element("span", { className: `swatch c${seriesColor(line)}` }),
        element("bdi", { className: "name", textContent: name || this.title }),
        element("span", { className: "value", textContent: text }));
    }

    placeReadOut(px) {
      const home = readOut.parentElement.getBoundingClientRect();
      const box = this.svg.getBoundingClientRect();
      const at = box.left - home.left + (px * box.width) / this.svg.viewBox.baseVal.width;
      const width = readOut.offsetWidth;
      const left = at + 14 + width <= home.width ? at + 14 : at - 14 - width;
      readOut.style.left = `${Math.max(0, Math.min(home.width - width, left))}px`;
      readOut.style.top = `${box.top - home.top + 4}px`;
    }

    hideReadOut() {
      this.overlay?.remove();
      this.overlay = null;
      readOut.hidden = true;
    }

    // To a neighboring point of the line that is read out, or to another line at the same place.
    moveCursor(points, lines) {
      const { series } = this;
      if (!series.length) return;
      const current = Math.max(0, series.findIndex(({ line }) => line === this.cursor?.line));
      const { line, xs } = series[(current + lines + series.length) % series.length];
      let index = (this.cursor?.index ?? xs.length) + points;
      if (!this.cursor) index = xs.length - 1;
      if (lines) index = nearest(xs, series[current].xs[this.cursor?.index ?? 0]);
      index = Math.max(0, Math.min(xs.length - 1, index));
      const others = this.pointsAt(xs[index]).filter((point) => point.line !== line);
      const { low, high } = this.shownScales;
      if (xs[index] >= low && xs[index] <= high) this.readOut([{ line, xs, index }, ...others]);
    }

    // A full plot over the width of the page, or back.
    toggleSize() {
      settings.large = this.isLarge ? settings.large.filter((id) => id !== this.id) : [...settings.large, this.id];
      this.figure.classList.toggle("large", this.isLarge);
      this.hideReadOut();
      this.cursor = null;
      this.update();
    }
  }

  return { Plot, runOf, settings, readOut, element, shape, formatStep };
})();
