"use strict";
// Curves that respond: filter, read-out, zoom, other axes, one step for all images, live reload.
// Without this script every plot is a complete picture; the numbers come from its <metadata>.
(() => {
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const shape = (name, attributes = {}, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const finite = Number.isFinite;
  const fixed = (pixel) => pixel.toFixed(1);

  // ---- what is kept while the page is reloaded -------------------------------------------------
  const initial = {
    filter: "", hidden: [], lines: "both", y: "auto", x: "step", outliers: false, together: false,
    zoom: null, zooms: {}, large: [], open: {}, imageStep: null, allImages: false, place: null,
  };
  const storageKey = `reportgen ${location.pathname}`;
  const load = () => {
    try {
      return { ...initial, ...JSON.parse(sessionStorage.getItem(storageKey) ?? "{}") };
    } catch {
      return { ...initial };
    }
  };
  const state = load();
  const folds = () => [...document.querySelectorAll("#training details")].filter((each) => !each.closest(".curve-tools"));
  const foldName = (fold, index) => fold.id || `${fold.querySelector("summary")?.firstChild?.textContent.trim()} ${index}`;
  const anchors = () => document.querySelectorAll("#training figure[id], #training [id], section[id]");
  const save = () => {
    folds().forEach((fold, index) => { state.open[foldName(fold, index)] = fold.dataset.opened ? false : fold.open; });
    const first = [...anchors()].find((each) => each.getBoundingClientRect().bottom > 0 && each.tagName === "FIGURE")
      ?? [...anchors()].find((each) => each.getBoundingClientRect().bottom > 0);
    state.place = first ? { id: first.id, top: first.getBoundingClientRect().top } : null;
    try {
      sessionStorage.setItem(storageKey, JSON.stringify(state));
    } catch { /* storage may be full or forbidden; the page works without */ }
  };
  addEventListener("pagehide", save);

  // ---- numbers and ticks, as reportgen.charts.axes writes them ---------------------------------
  const scientific = (value, places) => value.toExponential(places).replace(/\.?0+e/, "e").replace("e+", "e");
  const formatValue = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e6) return scientific(value, 4).replace(/^-/, "−");
    return value.toLocaleString("en-US", { maximumSignificantDigits: 5 }).replace("-", "−");
  };
  const formatStep = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 3 });
  const formatDuration = (seconds) => {
    const s = Math.round(Math.abs(seconds));
    if (s < 60) return `${Math.abs(seconds) < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`;
    const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
    const parts = d ? [`${d} d`, h && `${h} h`] : h ? [`${h} h`, m && `${m} min`] : [`${m} min`, s % 60 && `${s % 60} s`];
    return parts.filter(Boolean).join(" ");
  };
  const formatDate = (seconds) => new Date(seconds * 1000).toLocaleString("en-US", {
    month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false,
  });
  const niceTicks = (low, high, most) => {
    const power = 10 ** Math.floor(Math.log10((high - low) / most));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size * most >= high - low) ?? 10 * power;
    const ticks = [];
    for (let index = Math.ceil(low / step - 1e-9); index <= high / step + 1e-9; index += 1) ticks.push(Number((index * step).toPrecision(12)));
    return { ticks, step };
  };
  const tickLabel = (largest, step) => (tick) => {
    if (tick === 0) return "0";
    if (largest < 1e-3 || largest >= 1e15) return scientific(tick, 4).replace(/^-/, "−");
    const [size, prefix] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([unit]) => largest >= 1e4 && largest >= unit && step >= unit / 1000) ?? [1, ""];
    const places = prefix ? 3 : Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const text = (tick / size).toLocaleString("en-US", prefix ? { maximumFractionDigits: places } : { minimumFractionDigits: places, maximumFractionDigits: places });
    return `${text.replace("-", "−")}${prefix}`;
  };
  const linearTicks = (low, high, most) => {
    const { ticks, step } = niceTicks(low, high, most);
    return ticks.map((tick) => [tick, tickLabel(Math.max(...ticks.map(Math.abs)), step)(tick)]);
  };
  const logTicks = (low, high, most) => {
    let ticks = [];
    for (const factors of [[1], [1, 3], [1, 2, 5]]) {
      ticks = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) ticks.push(...factors.map((factor) => Number(`${factor}e${power}`)));
      ticks = ticks.filter((tick) => tick >= low && tick <= high);
      if (ticks.length >= 3) break;
    }
    const every = Math.ceil(ticks.length / most);
    const chosen = ticks.filter((_, index) => index % every === 0);
    return ticks.length < 2 ? linearTicks(low, high, most) : chosen.map((tick) => [tick, tick >= 1e-3 && tick < 1e4 ? tick.toLocaleString("en-US") : tickLabel(tick, tick)(tick)]);
  };
  const timeTicks = (low, high, most, wall) => {
    const units = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800, 2592000, 31536000];
    const step = units.find((unit) => unit * most >= high - low) ?? units.at(-1);
    const shift = wall ? new Date(low * 1000).getTimezoneOffset() * 60 : 0; // ticks at full local hours
    const ticks = [];
    for (let tick = Math.ceil((low - shift) / step) * step + shift; tick <= high; tick += step) ticks.push(tick);
    const part = step >= 86400 ? { month: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit", second: step < 60 ? "2-digit" : undefined, hour12: false };
    return ticks.map((tick) => [tick, wall ? new Date(tick * 1000).toLocaleString("en-US", part) : formatDuration(tick)]);
  };

  // ---- the data of a plot ----------------------------------------------------------------------
  const interpolate = ([xs, values], x) => {
    let index = 1;
    while (index < xs.length - 1 && xs[index] < x) index += 1;
    if (xs.length < 2) return values[0];
    const share = (x - xs[index - 1]) / (xs[index] - xs[index - 1] || 1);
    return values[index - 1] + Math.max(0, Math.min(1, share)) * (values[index] - values[index - 1]);
  };
  const decode = (svg) => {
    const data = JSON.parse(svg.querySelector("metadata").textContent);
    const xs = data.x.map((list) => {
      let sum = 0;
      return data.steps ? list.map((difference) => (sum += difference)) : list;
    });
    for (const line of data.lines) line.steps = xs[line.x];
    return data;
  };
  // A line's positions on the chosen axis; null where its log has none.
  const position = (line, mode, x) => {
    if (mode === "epoch") return line.e ? interpolate(line.e, x) : null;
    if (mode === "relative") return line.t ? interpolate(line.t, x) : null;
    if (mode === "wall") return line.t ? line.t0 + interpolate(line.t, x) : null;
    return x;
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
  // The rule of reportgen.charts.axes.robust_range, on the plotted points.
  const chooseRange = (lists, keep) => {
    const all = lists.flat();
    if (!all.length) return { low: 0, high: 1, log: false };
    const bulk = lists.filter((list) => list.length).map((list) => {
      const sorted = [...list].sort((a, b) => a - b);
      const drop = state.outliers ? 0 : Math.floor(list.length / 100) || Number(list.length >= 8);
      return [sorted[drop], sorted[sorted.length - 1 - drop]];
    });
    let low = Math.min(...bulk.map(([least]) => least), ...keep);
    let high = Math.max(...bulk.map(([, most]) => most), ...keep);
    const median = [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];
    const log = state.y === "log" ? high > 0 : state.y === "auto" && low > 0 && high >= 100 * low && median <= low + 0.1 * (high - low);
    if (log) low = low > 0 ? low : all.reduce((least, value) => (value > 0 && value < least ? value : least), high);
    const scale = (value) => (log ? Math.log10(value) : value);
    const span = scale(high) - scale(low) || (log ? 0.3 : 0.5 * Math.abs(low)) || Infinity;
    const near = all.filter((value) => (!log || value > 0) && scale(value) >= scale(low) - 3 * span && scale(value) <= scale(high) + 3 * span);
    low = near.reduce((least, value) => Math.min(least, value), low);
    high = near.reduce((most, value) => Math.max(most, value), high);
    if (high - low <= 4e-7 * Math.max(Math.abs(low), Math.abs(high))) {
      const half = 0.5 * Math.abs(low) || 1;
      return { low: low - half, high: high + half, log: false };
    }
    if (log) return { low: low / (high / low) ** 0.05, high: high * (high / low) ** 0.05, log };
    const zero = low >= 0 && low <= 0.2 * (high - low);
    return { low: zero ? (low > 0 ? 0 : -0.02 * high) : low - 0.05 * (high - low), high: high + 0.05 * (high - low), log };
  };

  // ---- one plot --------------------------------------------------------------------------------
  class Plot {
    constructor(figure, index) {
      this.figure = figure;
      this.index = index;
      this.id = figure.id || figure.dataset.title || String(index);
      this.title = figure.dataset.title ?? "";
      this.original = figure.querySelector("svg");
      this.svg = this.original;
      this.drawn = "";
      this.visible = false;
    }

    get data() {
      this.parsed ??= this.original?.querySelector("metadata") ? decode(this.original) : null;
      return this.parsed;
    }

    get large() { return state.large.includes(this.id); }
    get zoom() { return (state.together ? state.zoom : state.zooms[this.id]) ?? null; }
    set zoom(range) {
      if (state.together) state.zoom = range;
      else if (range) state.zooms[this.id] = range;
      else delete state.zooms[this.id];
    }

    get lines() { return this.data.lines.filter((line) => !state.hidden.includes(line.name)); }

    // The chosen x axis, or the one of the log where no line has the chosen one.
    get mode() { return this.lines.some((line) => position(line, state.x, line.steps[0]) !== null) ? state.x : "step"; }

    // Draws again what the settings have changed; a plot at its defaults is the picture as it came.
    update() {
      if (!this.data) return;
      const plain = state.lines === "both" && state.y === "auto" && state.x === "step" && !state.outliers && !this.zoom && !state.hidden.length;
      const small = this.data.spark && !this.large;
      const settings = JSON.stringify([state.lines, state.y, this.mode, state.outliers, this.zoom, state.hidden, this.large && this.figure.clientWidth]);
      if (small || (plain && !this.large)) {
        this.show(this.original);
        this.geometry = null;
        this.drawn = "";
        if (small) this.original.querySelectorAll(":scope > g").forEach((group, at) => group.classList.toggle("off", state.hidden.includes(this.data.lines[at]?.name)));
      } else if (settings !== this.drawn) {
        this.drawn = settings;
        this.show(this.draw());
      }
    }

    show(svg) {
      if (svg === this.svg) return;
      const focused = this.svg === document.activeElement;
      this.svg.replaceWith(svg);
      this.svg = svg;
      this.prepare();
      if (focused) svg.focus({ preventScroll: true });
    }

    prepare() {
      if (!this.data) return;
      this.svg.setAttribute("tabindex", "0");
      this.svg.setAttribute("role", this.data.spark && !this.large ? "button" : "application");
      if (this.button) this.button.textContent = this.large ? "Shrink" : "Enlarge";
      this.button?.setAttribute("aria-expanded", String(this.large));
    }

    // Scales of the picture as it is shown.
    get scales() {
      if (this.geometry) return this.geometry;
      const [left, right, top, bottom, low, high] = this.data.area;
      const [yLow, yHigh, log] = this.data.y;
      return this.scalesOf({ left, right, top, bottom }, [low, high], { low: yLow, high: yHigh, log: Boolean(log) });
    }

    scalesOf(area, [low, high], range) {
      const scale = (value) => (range.log ? Math.log10(value) : value);
      return {
        ...area, low, high, range,
        x: (value) => area.left + ((value - low) / (high - low)) * (area.right - area.left),
        y: (value) => area.bottom - ((scale(value) - scale(range.low)) / (scale(range.high) - scale(range.low))) * (area.bottom - area.top),
        value: (pixel) => low + ((pixel - area.left) / (area.right - area.left)) * (high - low),
      };
    }

    // Each visible line with its positions on the chosen axis.
    series() {
      const mode = this.mode;
      const drawn = this.lines.filter((line) => position(line, mode, line.steps[0]) !== null);
      return drawn.map((line) => ({ line, xs: line.steps.map((x) => position(line, mode, x)) }));
    }

    draw() {
      const mode = this.mode;
      const series = this.series();
      const width = this.large ? Math.max(320, Math.min(1100, this.figure.clientWidth)) : 360;
      const height = width > 500 ? 320 : 196;
      const every = series.flatMap(({ xs, line }) => [xs[0], xs.at(-1), ...(line.nf ?? []).map(([x]) => position(line, mode, x))]);
      const ends = every.length ? [Math.min(...every), Math.max(...every)] : [0, 1];
      const pad = 0.015 * (ends[1] - ends[0]) || 0.5 * (Math.abs(ends[0]) || 1);
      const [low, high] = this.zoom?.mode === mode ? this.zoom.range : [ends[0] - pad, ends[1] + pad];
      const range = this.range(series, low, high);
      const yTicks = (range.log ? logTicks : linearTicks)(range.low, range.high, height > 250 ? 7 : 5);
      const left = Math.max(40, 10 + Math.ceil(5.6 * Math.max(0, ...yTicks.map(([, label]) => label.length))));
      const scales = this.scalesOf({ left, right: width - 12, top: 10, bottom: height - 30 }, [low, high], range);
      this.geometry = scales;
      const body = shape("g");
      const clip = `clip-${this.index}`;
      this.frame(body, scales, yTicks, mode);
      const inside = shape("g", { "clip-path": `url(#${clip})` });
      for (const each of [...series].sort((a, b) => (b.line.faded ?? 0) - (a.line.faded ?? 0))) this.curve(inside, each, scales);
      body.append(inside);
      for (const each of series) this.marks(body, each, scales, mode);
      const bottom = this.key(body, series, scales, width, height);
      const svg = shape("svg", { class: "chart live", viewBox: `0 0 ${width} ${bottom}`, width, height: bottom, "aria-label": this.data.title });
      const defs = shape("clipPath", { id: clip });
      defs.append(shape("rect", { x: scales.left, y: scales.top, width: scales.right - scales.left, height: scales.bottom - scales.top }));
      svg.append(shape("title", {}, this.data.title), defs, body);
      return svg;
    }

    range(series, low, high) {
      const [yLow, yHigh, log] = this.data.y;
      if (state.y === "auto" && !state.outliers && !this.zoom && !state.hidden.length) return { low: yLow, high: yHigh, log: Boolean(log) };
      const lists = series.map(({ line, xs }) => line.y.filter((value, at) => value !== null && xs[at] >= low && xs[at] <= high));
      const keep = this.zoom ? [] : series.flatMap(({ line }) => [line.best, line.last].filter(Boolean).map(([, value]) => value));
      return chooseRange(lists, keep);
    }

    frame(body, { left, right, top, bottom, low, high, x, y, range }, yTicks, mode) {
      const most = right - left > 450 ? 9 : 5;
      const xTicks = mode === "relative" || mode === "wall" ? timeTicks(low, high, most, mode === "wall") : linearTicks(low, high, most);
      const [from, to] = this.data.valid ?? [];
      for (const [limit, edge] of [[from, bottom], [to, top]]) {
        if (limit === null || limit === undefined) continue;
        const at = y(Math.min(Math.max(limit, range.low), range.high));
        body.append(shape("rect", { class: "invalid", x: left, y: Math.min(at, edge), width: right - left, height: Math.abs(edge - at) }));
      }
      const crisp = (pixel) => Math.floor(pixel) + 0.5;
      body.append(
        shape("path", { class: "rule", d: yTicks.map(([tick]) => `M${left} ${crisp(y(tick))}H${right}`).join("") }),
        shape("path", { class: "edge", d: `M${left} ${crisp(bottom)}H${right}${xTicks.map(([tick]) => `M${crisp(x(tick))} ${bottom}v4`).join("")}` }),
      );
      let free = -Infinity;
      for (const [tick, label] of xTicks) {
        const half = 2.8 * label.length;
        if (x(tick) - half < free || x(tick) + half > right + 12) continue;
        free = x(tick) + half + 6;
        this.text(body, x(tick), bottom + 15, label, "middle");
      }
      for (const [tick, label] of yTicks) this.text(body, left - 6, y(tick) + 3.5, label, "end");
      const names = { epoch: "epoch", relative: "time since the start", wall: "wall time" };
      this.text(body, (left + right) / 2, bottom + 27, names[mode] ?? this.data.x_title, "middle");
      for (const [label, value] of this.data.references ?? []) {
        if (value < range.low || value > range.high) continue;
        body.append(shape("path", { class: "rule", d: `M${left} ${fixed(y(value))}H${right}`, "stroke-dasharray": "6 3" }));
        this.text(body, right - 3, y(value) - 3, label.slice(0, 24), "end");
      }
      for (const [label, at] of mode === "step" ? this.data.marks ?? [] : []) {
        if (at < low || at > high) continue;
        const named = this.data.marks.length <= 12;
        body.append(shape("path", { class: "rule", d: `M${fixed(x(at))} ${top}V${named ? bottom : top + 8}`, "stroke-dasharray": "2 3" }));
        if (named) this.text(body, x(at) + 3, top + 8, label.slice(0, 24), "start");
      }
    }

    text(body, x, y, words, anchor, kind = "muted") {
      body.append(shape("text", { x: fixed(x), y: fixed(y), "text-anchor": anchor, class: `${kind} tick` }, words));
    }

    curve(body, { line, xs }, { x, y, range }) {
      const group = shape("g", { class: line.faded ? "curve faded" : `curve l${line.c % 8}` });
      const path = (values) => {
        let pen = "M";
        return values.map((value, at) => {
          if (value === null || (range.log && value <= 0)) {
            pen = "M";
            return "";
          }
          const [move, lone] = [pen, pen === "M" && (values[at + 1] ?? null) === null];
          pen = "L";
          return `${move}${fixed(x(xs[at]))} ${fixed(y(value))}${lone ? "h0" : ""}`;
        }).join("");
      };
      if (line.lo && line.hi) {
        const upper = path(line.hi);
        const lower = [...line.lo.keys()].reverse().filter((at) => line.lo[at] !== null).map((at) => `L${fixed(x(xs[at]))} ${fixed(y(Math.max(line.lo[at], range.low)))}`).join("");
        group.append(shape("path", { class: `band s${line.c % 8}`, d: `${upper}${lower}z` }));
      }
      const smooth = state.lines === "strong" ? smoothedAgain(line.y) : state.lines === "raw" ? null : line.s;
      const few = line.y.filter((value) => value !== null).length <= 30;
      const dash = line.role === "validation" ? { "stroke-dasharray": "5 3" } : {};
      const thick = line.faded ? 1.2 : few ? 1.3 : 1.8;
      if (smooth && state.lines !== "smoothed") group.append(shape("path", { d: path(line.y), "stroke-width": 1, "stroke-opacity": 0.35 }));
      group.append(shape("path", { d: path(smooth ?? line.y), "stroke-width": thick, ...dash }));
      if (few) {
        const dots = line.y.map((value, at) => (value === null ? "" : `M${fixed(x(xs[at]))} ${fixed(y(value))}h0`)).join("");
        group.append(shape("path", { d: dots, "stroke-width": 4, "stroke-opacity": smooth ? 0.5 : 1 }));
      }
      body.append(group);
    }

    // Best, last, NaN and infinities, and what lies outside.
    marks(body, { line, xs }, { x, y, left, right, top, bottom, low, high, range }, mode) {
      const across = (at) => x(position(line, mode, at));
      const within = ([at, value]) => across(at) >= left && across(at) <= right && value >= range.low && value <= range.high;
      if (!line.faded && line.last && within(line.last)) body.append(shape("circle", { class: `s${line.c % 8}`, cx: fixed(across(line.last[0])), cy: fixed(y(line.last[1])), r: 2.6 }));
      if (!line.faded && line.best && within(line.best)) {
        const [bx, by] = [across(line.best[0]), y(line.best[1])];
        body.append(shape("circle", { class: `ring l${line.c % 8}`, cx: fixed(bx), cy: fixed(by), r: 3.6 }));
        this.text(body, Math.min(right - 16, Math.max(left + 16, bx)), by - 8 > top + 4 ? by - 8 : by + 15, formatValue(line.best[1]), "middle", "ink");
      }
      const triangle = (at, edge, size) => `M${fixed(at)} ${edge}l${0.6 * Math.abs(size)} ${size}h${-1.2 * Math.abs(size)}z`;
      let taken = -Infinity;
      line.y.forEach((value, at) => {
        if (value === null || xs[at] < low || xs[at] > high || (value >= range.low && value <= range.high) || x(xs[at]) - taken < 6) return;
        taken = x(xs[at]);
        body.append(shape("path", { class: `s${line.c % 8}`, d: value > range.high ? triangle(taken, top, 5) : triangle(taken, bottom, -5) }));
      });
      taken = -Infinity;
      for (const [at, kind] of line.nf ?? []) {
        const px = across(at);
        if (px < left || px > right || px - taken < 8) continue;
        taken = px;
        if (kind === "nan") body.append(shape("path", { class: "alarm", d: `M${fixed(px - 3.5)} ${bottom - 3.5}l7 7m0-7l-7 7` }));
        else body.append(shape("path", { class: "bad", d: kind === "inf" ? triangle(px, top, 7) : triangle(px, bottom, -7) }));
      }
    }

    // The legend and the notes; returns where they end.
    key(body, series, { left, low, high, range }, width, height) {
      const entries = new Map();
      for (const { line } of series) if (line.name) entries.set(`${line.name}\n${line.c}`, [line.name, line.faded ? "faded" : `l${line.c % 8}`, ""]);
      const roles = new Set(series.map(({ line }) => line.role).filter((role) => role !== "none"));
      const one = new Set(series.map(({ line }) => line.c)).size === 1 && series.length;
      if (roles.size > 1) for (const role of ["train", "validation"]) entries.set(role, [role, one ? `l${series[0].line.c % 8}` : "edge", role]);
      let [x, y] = [left, height + 12];
      for (const [name, kind, role] of [...entries.values()].slice(0, 12)) {
        const short = name.length > 36 ? `…${name.slice(-35)}` : name;
        const room = 43 + 6.2 * short.length;
        if (x + room > width && x > left) [x, y] = [left, y + 17];
        body.append(shape("path", { class: `sample ${kind}`, d: `M${x} ${y - 4}h22`, ...(role === "validation" ? { "stroke-dasharray": "5 3" } : {}) }));
        body.append(shape("text", { x: x + 28, y, class: "muted" }, short));
        x += room;
      }
      if (entries.size) y += 8;
      else y = height;
      const notes = range.log ? ["log scale"] : [];
      const whole = !this.zoom && state.y === "auto" && !state.outliers && !state.hidden.length;
      const outside = whole ? this.data.outside ?? 0 : series.reduce((sum, { line, xs }) => sum + line.y.filter((value, at) => value !== null && xs[at] >= low && xs[at] <= high && (value < range.low || value > range.high)).length, 0);
      if (outside) notes.push(`${formatStep(outside)} ${outside === 1 ? "point" : "points"} outside${whole && this.data.highest ? `, max ${formatValue(this.data.highest[1])} at ${this.data.x_title} ${formatStep(this.data.highest[0])}` : ""}`);
      if (state.lines === "strong") notes.push("smoothed again, of the plotted points");
      if (this.data.spark) notes.push("few points; the CSV file has all");
      if (state.x !== this.mode) notes.push(`the log has no ${{ epoch: "epochs", relative: "times", wall: "times" }[state.x]}`);
      for (const note of notes) this.text(body, left, (y += 14), note, "start");
      return y + 6;
    }

    // ---- the read-out
    nearest(list, target) {
      let [low, high] = [0, list.length - 1];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (list[middle] < target) low = middle + 1;
        else high = middle;
      }
      return low > 0 && target - list[low - 1] < list[low] - target ? low - 1 : low;
    }

    readOutAt(pixelX, pixelY) {
      const scales = this.scales;
      const target = scales.value(pixelX);
      const points = this.series().map(({ line, xs }) => ({ line, xs, at: this.nearest(xs, target) })).filter(({ xs, at }) => at >= 0 && xs[at] >= scales.low && xs[at] <= scales.high);
      const distance = ({ line, xs, at }) => (line.y[at] === null ? 1e6 : 0) + Math.hypot(scales.x(xs[at]) - pixelX, (pixelY === null ? 0 : scales.y(line.y[at]) - pixelY) || 0);
      points.sort((a, b) => distance(a) - distance(b));
      if (points.length) this.readOut(points);
    }

    readOut(points) {
      const scales = this.scales;
      const [{ line, xs, at }] = points;
      this.cursor = { line, at };
      this.overlay?.remove();
      const px = scales.x(xs[at]);
      this.overlay = shape("g", { class: "cursor" });
      this.overlay.append(shape("path", { class: "edge", d: `M${fixed(px)} ${scales.top}V${scales.bottom}` }));
      for (const point of points) {
        const value = point.line.y[point.at];
        if (value === null || value < scales.range.low || value > scales.range.high) continue;
        this.overlay.append(shape("circle", { class: `s${point.line.c % 8} seam`, cx: fixed(scales.x(point.xs[point.at])), cy: fixed(scales.y(value)), r: point === points[0] ? 4.5 : 3 }));
      }
      this.svg.append(this.overlay);
      const step = line.steps[at];
      const about = [`${this.data.x_title} ${formatStep(step)}`];
      if (line.e) about.push(`epoch ${formatStep(Number(interpolate(line.e, step).toFixed(2)))}`);
      if (line.t) about.push(`${formatDuration(interpolate(line.t, step))} (${formatDate(line.t0 + interpolate(line.t, step))})`);
      readOut.replaceChildren(element("p", { className: "about", textContent: about.join(" · ") }), ...points.slice(0, 8).map((point) => this.row(point, point === points[0])));
      if (points.length > 8) readOut.append(element("p", { className: "about", textContent: `and ${points.length - 8} more lines` }));
      if (readOut.parentElement !== this.figure) this.figure.append(readOut);
      readOut.hidden = false;
      const [figure, box] = [this.figure.getBoundingClientRect(), this.svg.getBoundingClientRect()];
      const pixel = box.left - figure.left + (px * box.width) / this.svg.viewBox.baseVal.width;
      const beside = pixel + 14 + readOut.offsetWidth <= figure.width ? pixel + 14 : pixel - 14 - readOut.offsetWidth;
      readOut.style.left = `${Math.max(0, Math.min(figure.width - readOut.offsetWidth, beside))}px`;
      readOut.style.top = `${box.top - figure.top + 4}px`;
    }

    row({ line, at }, first) {
      const kinds = { nan: "NaN", inf: "Inf", "-inf": "−Inf" };
      const lost = (line.nf ?? []).find(([x]) => x === line.steps[at]);
      const value = line.y[at] === null ? kinds[lost?.[1]] ?? "not finite" : formatValue(line.y[at]);
      const smooth = line.s?.[at] ?? null;
      const name = [line.name, line.role === "none" ? "" : line.role].filter(Boolean).join(" ");
      const other = this.cursor.line !== line && line.steps[at] !== this.cursor.line.steps[this.cursor.at] ? ` at ${formatStep(line.steps[at])}` : "";
      return element("p", { className: first ? "line first" : "line" },
        element("span", { className: `swatch c${line.c % 8}` }),
        element("span", { className: "name", textContent: name || this.title }),
        element("span", { className: "value", textContent: `${value}${smooth === null || line.y[at] === null ? "" : ` (${formatValue(smooth)})`}${other}` }));
    }

    // Arrow keys: to the next point of this line, or to another line at the same place.
    moveCursor(points, lines) {
      const series = this.series();
      if (!series.length) return;
      const current = Math.max(0, series.findIndex(({ line }) => line === this.cursor?.line));
      const next = (current + lines + series.length) % series.length;
      const { line, xs } = series[next];
      const scales = this.scales;
      let at = this.cursor ? this.cursor.at : xs.length - 1;
      if (lines) at = this.nearest(xs, series[current].xs[at]);
      do at += Math.sign(points); while (points && line.y[at] === null && !(line.nf ?? []).some(([x]) => x === line.steps[at]) && at > 0 && at < xs.length - 1);
      at = Math.max(0, Math.min(xs.length - 1, at));
      if (xs[at] < scales.low || xs[at] > scales.high) return;
      const others = series.filter((each) => each.line !== line).map((each) => ({ ...each, at: this.nearest(each.xs, xs[at]) }));
      this.readOut([{ line, xs, at }, ...others]);
    }

    hideReadOut() {
      this.overlay?.remove();
      this.overlay = null;
      if (readOut.parentElement === this.figure) readOut.hidden = true;
    }

    enlarge() {
      state.large = this.large ? state.large.filter((id) => id !== this.id) : [...state.large, this.id];
      this.figure.classList.toggle("large", this.large);
      this.hideReadOut();
      this.cursor = null;
      this.update();
      this.prepare();
    }
  }

  // ---- all plots: drawn when they come into view -----------------------------------------------
  const readOut = element("div", { className: "read-out", hidden: true });
  readOut.setAttribute("aria-live", "polite");
  const area = document.querySelector("[data-curves]");
  const plots = area ? [...area.querySelectorAll("figure.plot")].map((figure, index) => new Plot(figure, index)) : [];
  const plotOf = new Map(plots.map((plot) => [plot.figure, plot]));
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const plot = plotOf.get(target);
      plot.visible = isIntersecting;
      if (isIntersecting) reveal(plot);
    }
  }, { rootMargin: "200px" });
  const reveal = (plot) => {
    if (plot.data && !plot.button) {
      plot.button = element("button", { type: "button", className: "enlarge" });
      plot.button.addEventListener("click", () => plot.enlarge());
      (plot.figure.querySelector("figcaption") ?? plot.figure).append(plot.button);
      plot.prepare();
    }
    plot.update();
  };
  let pending = 0;
  const refresh = () => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => {
      for (const plot of plots) if (plot.visible) plot.update();
      resetZoom.hidden = !state.zoom && !Object.keys(state.zooms).length;
    });
  };

  const applyFilter = () => {
    let pattern = null;
    try {
      pattern = new RegExp(state.filter, "i");
      filter.removeAttribute("aria-invalid");
      filter.title = "";
    } catch (error) {
      filter.setAttribute("aria-invalid", "true");
      filter.title = error.message;
      return;
    }
    let matches = 0;
    const groups = new Map();
    for (const plot of plots) {
      const match = pattern.test(plot.title);
      plot.figure.hidden = !match;
      matches += match;
      const group = plot.figure.closest("details.plot-group");
      if (group) groups.set(group, (groups.get(group) ?? 0) + match);
    }
    for (const [group, count] of groups) {
      group.hidden = !count;
      if (state.filter && count && !group.open) {
        group.dataset.opened = "by the filter";
        group.open = true;
      } else if (!state.filter && group.dataset.opened) {
        delete group.dataset.opened;
        group.open = false;
      }
      const label = group.querySelector("summary .count");
      if (!label) continue;
      label.dataset.all ??= label.textContent;
      label.textContent = state.filter ? `${count} of ${label.dataset.all}` : label.dataset.all;
    }
    found.textContent = state.filter ? `${matches} of ${plots.length} plots` : `${plots.length} plots`;
  };

  // ---- the tools -------------------------------------------------------------------------------
  const filter = element("input", { type: "search", value: state.filter, placeholder: "regular expression", spellcheck: false });
  const found = element("output", { className: "found" });
  const choice = (name, key, options) => {
    const select = element("select", {}, ...Object.entries(options).map(([value, textContent]) => element("option", { value, textContent })));
    select.value = state[key];
    select.addEventListener("change", () => { state[key] = select.value; refresh(); });
    return element("label", {}, `${name} `, select);
  };
  const tick = (name, key, changed = refresh) => {
    const box = element("input", { type: "checkbox", checked: state[key] });
    box.addEventListener("change", () => { state[key] = box.checked; changed(); });
    return element("label", {}, box, ` ${name}`);
  };
  const resetZoom = element("button", { type: "button", textContent: "Reset zoom", hidden: true });
  const runFilter = element("details", { className: "run-filter", hidden: true }, element("summary", { textContent: "Runs" }));
  const xChoice = choice("x", "x", { step: "as logged", epoch: "epoch", relative: "relative time", wall: "wall time" });

  const listRuns = () => {
    const runs = new Map();
    const axes = new Set(["step"]);
    for (const plot of plots) {
      for (const line of plot.data?.lines ?? []) {
        if (line.name && !runs.has(line.name)) runs.set(line.name, line.c);
        if (line.e) axes.add("epoch");
        if (line.t) axes.add("relative").add("wall");
      }
    }
    for (const option of xChoice.querySelectorAll("option")) if (!axes.has(option.value)) option.remove();
    if (axes.size < 2) xChoice.hidden = true;
    if (runs.size < 2) return;
    const boxes = [...runs].map(([name, color]) => {
      const box = element("input", { type: "checkbox", checked: !state.hidden.includes(name), value: name });
      return element("label", {}, box, element("span", { className: `swatch c${color % 8}` }), element("bdi", { textContent: name }));
    });
    const list = element("div", { className: "run-list" }, ...boxes);
    const every = element("button", { type: "button", textContent: "All" });
    const none = element("button", { type: "button", textContent: "None" });
    const apply = () => {
      const inputs = [...list.querySelectorAll("input")];
      state.hidden = inputs.filter((box) => !box.checked).map((box) => box.value);
      runFilter.firstChild.textContent = state.hidden.length ? `Runs (${inputs.length - state.hidden.length} of ${inputs.length})` : `Runs (${inputs.length})`;
      refresh();
    };
    for (const [button, checked] of [[every, true], [none, false]]) {
      button.addEventListener("click", () => {
        for (const box of list.querySelectorAll("input")) box.checked = checked;
        apply();
      });
    }
    list.addEventListener("change", apply);
    runFilter.append(element("div", { className: "run-panel" }, element("p", {}, every, " ", none), list));
    runFilter.hidden = false;
    apply();
  };

  const buildTools = () => {
    const group = element("div", { className: "curve-tools" },
      element("label", { className: "filter" }, "Filter ", filter), found, runFilter,
      choice("Lines", "lines", { both: "raw and smoothed", raw: "raw", smoothed: "smoothed", strong: "smoothed again, of the plotted points" }),
      choice("y", "y", { auto: "auto", linear: "linear", log: "log" }), xChoice,
      tick("outliers", "outliers"), tick("zoom all together", "together"), resetZoom);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Curves");
    area.prepend(group);
    let typing = 0;
    filter.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => { state.filter = filter.value; applyFilter(); }, 120);
    });
    resetZoom.addEventListener("click", () => { state.zoom = null; state.zooms = {}; refresh(); });
    addEventListener("pointerdown", (event) => { if (!runFilter.contains(event.target)) runFilter.open = false; });
    (window.requestIdleCallback ?? setTimeout)(listRuns);
  };

  // ---- pointer and keys, one listener for all plots --------------------------------------------
  const under = (event) => {
    const plot = plotOf.get(event.target.closest?.("figure.plot"));
    return plot?.data && plot.svg.contains(event.target) ? plot : null;
  };
  const isButton = (plot) => plot.data.spark && !plot.large;
  const pixelsOf = (plot, event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.svg.getScreenCTM().inverse());
    return [point.x, point.y];
  };
  const listen = () => {
    let drag = null;
    let shown = null;
    area.addEventListener("pointermove", (event) => {
      if (drag) return stretch(event);
      const plot = under(event);
      if (shown && shown !== plot && !(readOut.contains(event.target))) shown.hideReadOut();
      if (!plot || isButton(plot)) return;
      shown = plot;
      plot.readOutAt(...pixelsOf(plot, event));
    });
    area.addEventListener("pointerleave", () => { if (!drag) shown?.hideReadOut(); });
    area.addEventListener("pointerdown", (event) => {
      const plot = under(event);
      if (!plot || isButton(plot) || event.button !== 0) return;
      drag = { plot, from: pixelsOf(plot, event)[0], id: event.pointerId, box: shape("rect", { class: "selection", y: plot.scales.top, height: plot.scales.bottom - plot.scales.top }) };
    });
    const stretch = (event) => {
      const { plot, from, box, id } = drag;
      const scales = plot.scales;
      const to = pixelsOf(plot, event)[0];
      if (Math.abs(to - from) < 4 && !box.parentNode) return;
      if (!box.parentNode) {
        plot.svg.append(box);
        plot.svg.setPointerCapture?.(id);
        plot.hideReadOut();
      }
      const [left, right] = [from, to].map((px) => Math.max(scales.left, Math.min(scales.right, px))).sort((a, b) => a - b);
      box.setAttribute("x", fixed(left));
      box.setAttribute("width", fixed(right - left));
      drag.range = right - left > 5 ? [scales.value(left), scales.value(right)] : null;
    };
    area.addEventListener("pointerup", () => {
      if (!drag) return;
      const { plot, range, box } = drag;
      drag = null;
      box.remove();
      if (!range) return;
      plot.zoom = { mode: plot.mode, range };
      refresh();
    });
    area.addEventListener("pointercancel", () => { drag?.box.remove(); drag = null; });
    area.addEventListener("click", (event) => { const plot = under(event); if (plot && isButton(plot)) plot.enlarge(); });
    area.addEventListener("dblclick", (event) => { const plot = under(event); if (plot && !isButton(plot)) { plot.zoom = null; refresh(); } });
    area.addEventListener("focusin", (event) => { const plot = under(event); if (plot && !isButton(plot) && event.target.matches(":focus-visible")) plot.moveCursor(0, 0); });
    area.addEventListener("focusout", (event) => under(event)?.hideReadOut());
    area.addEventListener("keydown", (event) => {
      const plot = under(event);
      if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
      const far = event.shiftKey ? 10 : 1;
      const keys = isButton(plot) ? { Enter: () => plot.enlarge(), " ": () => plot.enlarge() } : {
        ArrowLeft: () => { for (let n = 0; n < far; n += 1) plot.moveCursor(-1, 0); },
        ArrowRight: () => { for (let n = 0; n < far; n += 1) plot.moveCursor(1, 0); },
        ArrowUp: () => plot.moveCursor(0, -1), ArrowDown: () => plot.moveCursor(0, 1),
        Enter: () => plot.enlarge(),
        Escape: () => { plot.hideReadOut(); plot.zoom = null; refresh(); },
      };
      if (!(event.key in keys)) return;
      event.preventDefault();
      keys[event.key]();
    });
    addEventListener("resize", refresh);
  };

  // ---- one step for all images -----------------------------------------------------------------
  const buildImageTools = () => {
    const images = [...document.querySelectorAll("figure.logged-image[data-step]")];
    const steps = [...new Set(images.map((image) => Number(image.dataset.step)))].sort((a, b) => a - b);
    if (steps.length < 2) return;
    const streams = Map.groupBy ? null : new Map();
    const byStream = new Map();
    for (const image of images) {
      const stream = JSON.stringify([image.dataset.tag, image.dataset.run]);
      byStream.set(stream, [...(byStream.get(stream) ?? []), image]);
    }
    const slider = element("input", { type: "range", min: 0, max: steps.length - 1, step: 1 });
    const chosen = element("output", {});
    const last = state.imageStep === null ? steps.length - 1 : steps.findLastIndex((step) => step <= state.imageStep);
    slider.value = Math.max(0, last);
    const show = () => {
      const step = steps[slider.value];
      chosen.textContent = state.allImages ? "all" : formatStep(step);
      slider.disabled = state.allImages;
      slider.setAttribute("aria-valuetext", `step ${formatStep(step)}`);
      for (const stream of byStream.values()) {
        const newest = stream.reduce((best, image) => (Number(image.dataset.step) <= step && Number(image.dataset.step) >= Number(best?.dataset.step ?? -Infinity) ? image : best), null);
        for (const image of stream) image.hidden = !state.allImages && image !== newest;
      }
    };
    slider.addEventListener("input", () => {
      // The newest step stays the newest when a reload brings more.
      state.imageStep = Number(slider.value) === steps.length - 1 ? null : steps[slider.value];
      show();
    });
    const tools = element("div", { className: "image-tools" }, element("label", {}, "Step ", slider), chosen, tick("all steps", "allImages", show));
    images[0].closest(".image-grid").before(tools);
    show();
  };

  // ---- restore, start, and reload when the report was built again ------------------------------
  const restorePlace = () => {
    const kind = performance.getEntriesByType("navigation")[0]?.type;
    const target = state.place && kind === "reload" ? document.getElementById(state.place.id) : null;
    if (!target) return;
    history.scrollRestoration = "manual";
    const move = () => scrollBy({ top: target.getBoundingClientRect().top - state.place.top, behavior: "instant" });
    move();
    requestAnimationFrame(() => requestAnimationFrame(move)); // once more, when what is in view has its height
  };

  folds().forEach((fold, index) => { fold.open = state.open[foldName(fold, index)] ?? fold.open; });
  if (area) {
    for (const plot of plots) plot.figure.classList.toggle("large", plot.large);
    buildTools();
    applyFilter();
    listen();
    for (const plot of plots) observer.observe(plot.figure);
    refresh();
  }
  buildImageTools();
  restorePlace();

  const stamp = document.documentElement.dataset.live;
  if (stamp) {
    const poll = setInterval(() => {
      const script = element("script", { src: `live.js?${Date.now()}` });
      script.onload = script.onerror = () => script.remove();
      document.head.append(script);
    }, 1000);
    window.reportgenLive = (newest) => {
      if (newest === "") clearInterval(poll);
      else if (newest !== stamp) {
        save();
        location.reload();
      }
    };
  }
})();
