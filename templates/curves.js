"use strict";
// The tools of the training chapter: filter, runs, axes, zoom, keys, one step for all images; and
// a reload that keeps its place. curve_plot.js draws. Without scripts all of it stays readable.
(() => {
  const { Plot, runOf, settings, readOut, element, shape, formatStep } = curvePlots;
  const chapter = document.querySelector("#training");
  const area = document.querySelector("[data-curves]");
  const figures = area ? [...area.querySelectorAll("figure.plot")] : [];
  const plots = figures.map((figure, index) => new Plot(figure, index));
  const plotOf = new Map(plots.map((plot) => [plot.figure, plot]));

  // ---- state that outlives a reload of the page ----------------------------------------------
  const storageKey = `reportgen ${location.pathname}`;
  const stored = (() => {
    try {
      return JSON.parse(sessionStorage.getItem(storageKey)) ?? {};
    } catch {
      return {};
    }
  })();
  Object.assign(settings, stored.settings);
  const state = { filter: "", together: false, sharedZoom: null, imageStep: null, allImages: false, ...stored.state };

  const folds = () => [...(chapter?.querySelectorAll("details:not(.run-filter)") ?? [])];
  const foldName = (fold) => fold.id || fold.querySelector("summary")?.textContent || "";
  const place = () => {
    const named = [...document.querySelectorAll("main figure[id], main section[id]")].reverse();
    const top = (each) => each.getBoundingClientRect().top;
    const shown = named.filter((each) => each.getClientRects().length);
    // The last named element that starts above the upper third of the window.
    const anchor = shown.find((each) => top(each) < innerHeight / 3);
    return anchor ? { id: anchor.id, top: top(anchor) } : null;
  };
  const save = () => {
    const open = Object.fromEntries(folds().map((fold) => [foldName(fold), fold.open && !fold.dataset.filtered]));
    const zooms = Object.fromEntries(plots.filter((plot) => plot.zoom).map((plot) => [plot.id, plot.zoom]));
    try {
      sessionStorage.setItem(storageKey, JSON.stringify({ settings, state, open, zooms, place: place() }));
    } catch { /* storage can be full or forbidden: the page then starts afresh */ }
  };
  const restorePlace = () => {
    const isReload = performance.getEntriesByType("navigation")[0]?.type === "reload";
    const anchor = isReload && stored.place ? document.getElementById(stored.place.id) : null;
    if (!anchor) return;
    history.scrollRestoration = "manual";
    const move = () => scrollBy({ top: anchor.getBoundingClientRect().top - stored.place.top, behavior: "instant" });
    move();
    // Once more when what came into view has taken its height.
    requestAnimationFrame(() => requestAnimationFrame(move));
  };
  addEventListener("pagehide", save);

  // ---- drawing what is in view ---------------------------------------------------------------
  let pending = 0;
  const refresh = () => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => {
      for (const plot of plots) if (plot.visible) plot.update();
      resetZoom.hidden = !plots.some((plot) => plot.zoom);
    });
  };
  const resize = (plot) => {
    plot.toggleSize();
    plot.button.textContent = plot.isLarge ? "Shrink" : "Enlarge";
    plot.button.setAttribute("aria-expanded", String(plot.isLarge));
  };
  const addButton = (plot) => {
    const textContent = plot.isLarge ? "Shrink" : "Enlarge";
    plot.button = element("button", { type: "button", className: "enlarge", textContent });
    plot.button.setAttribute("aria-expanded", String(plot.isLarge));
    plot.button.addEventListener("click", () => resize(plot));
    (plot.figure.querySelector("figcaption") ?? plot.figure).append(plot.button);
  };
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const plot = plotOf.get(target);
      plot.visible = isIntersecting;
      if (!isIntersecting || !plot.metadata) continue;
      if (!plot.button) addButton(plot);
      plot.show(plot.svg);
      plot.update();
    }
  }, { rootMargin: "200px" });

  const setZoom = (plot, zoom) => {
    plot.zoom = zoom;
    if (state.together) {
      state.sharedZoom = zoom;
      for (const each of plots) each.zoom = zoom;
    }
    refresh();
  };

  // ---- tools ---------------------------------------------------------------------------------
  const choice = (name, key, options) => {
    const items = Object.entries(options).map(([value, textContent]) => element("option", { value, textContent }));
    const select = element("select", {}, ...items);
    select.value = settings[key];
    select.addEventListener("change", () => {
      settings[key] = select.value;
      refresh();
    });
    return element("label", {}, `${name} `, select);
  };
  const box = (name, owner, key, changed) => {
    const input = element("input", { type: "checkbox", checked: owner[key] });
    input.addEventListener("change", () => {
      owner[key] = input.checked;
      changed();
    });
    return element("label", {}, input, ` ${name}`);
  };
  const filter = element("input", {
    type: "search", value: state.filter, placeholder: "regular expression", spellcheck: false,
  });
  const found = element("output", { className: "found" });
  const runFilter = element("details", { className: "run-filter", hidden: true }, element("summary"));
  const xChoice = choice("x axis", "x", {
    step: "as logged", epoch: "epoch", relative: "relative time", wall: "wall time",
  });
  const resetZoom = element("button", { type: "button", textContent: "Reset zoom", hidden: true });

  const applyFilter = () => {
    let pattern;
    try {
      pattern = new RegExp(state.filter, "i");
    } catch (error) {
      filter.setAttribute("aria-invalid", "true");
      filter.title = error.message;
      return;
    }
    filter.removeAttribute("aria-invalid");
    filter.title = "";
    const counts = new Map([...area.querySelectorAll("details.plot-group")].map((group) => [group, 0]));
    let matches = 0;
    for (const { figure, title } of plots) {
      figure.hidden = !pattern.test(title);
      if (figure.hidden) continue;
      matches += 1;
      const group = figure.closest("details.plot-group");
      if (group) counts.set(group, counts.get(group) + 1);
    }
    for (const [group, count] of counts) filterGroup(group, count);
    found.textContent = state.filter ? `${matches} of ${plots.length} plots` : `${plots.length} plots`;
  };
  // A folded group with matches is opened as long as the filter lasts.
  const filterGroup = (group, count) => {
    group.hidden = !count;
    if (state.filter && count && !group.open) {
      group.dataset.filtered = "";
      group.open = true;
    } else if (!state.filter && "filtered" in group.dataset) {
      delete group.dataset.filtered;
      group.open = false;
    }
    const label = group.querySelector("summary .count");
    if (!label) return;
    label.dataset.all ??= label.textContent;
    label.textContent = state.filter ? `${count} of ${label.dataset.all}` : label.dataset.all;
  };

  // Reads the data of every plot, so it is left until the page is shown.
  const readRuns = () => {
    const runs = new Map();
    const axes = new Set(["step"]);
    const lines = plots.filter((plot) => plot.metadata).flatMap((plot) => plot.data.lines);
    for (const line of lines) {
      const run = runOf(line);
      if (run && !runs.has(run)) runs.set(run, line.c % 8);
      if (line.e) axes.add("epoch");
      if (line.t) axes.add("relative").add("wall");
    }
    for (const option of xChoice.querySelectorAll("option")) if (!axes.has(option.value)) option.remove();
    xChoice.hidden = axes.size < 2;
    settings.hidden = settings.hidden.filter((name) => runs.has(name));
    if (runs.size > 1) listRuns(runs);
  };
  const listRuns = (runs) => {
    const boxes = [...runs].map(([name, color]) => {
      const input = element("input", { type: "checkbox", checked: !settings.hidden.includes(name), value: name });
      return element("label", {}, input, element("span", { className: `swatch c${color}` }),
        element("bdi", { textContent: name }));
    });
    const list = element("div", { className: "run-list" }, ...boxes);
    const inputs = boxes.map((label) => label.firstChild);
    const apply = () => {
      settings.hidden = inputs.filter((input) => !input.checked).map((input) => input.value);
      const shown = inputs.length - settings.hidden.length;
      const count = settings.hidden.length ? `${shown} of ${inputs.length}` : shown;
      runFilter.firstChild.textContent = `Runs (${count})`;
      refresh();
    };
    const all = (textContent, checked) => {
      const button = element("button", { type: "button", textContent });
      button.addEventListener("click", () => {
        for (const input of inputs) input.checked = checked;
        apply();
      });
      return button;
    };
    list.addEventListener("change", apply);
    runFilter.append(element("div", { className: "run-panel" },
      element("p", {}, all("All", true), " ", all("None", false)), list));
    runFilter.hidden = false;
    apply();
  };

  const buildTools = () => {
    const lines = {
      both: "raw and smoothed", raw: "raw", smoothed: "smoothed", strong: "smoothed again, of the plotted points",
    };
    const tools = element("div", { className: "curve-tools" },
      element("label", {}, "Filter ", filter), found, runFilter,
      choice("Lines", "lines", lines),
      choice("y axis", "y", { auto: "auto", linear: "linear", log: "log" }), xChoice,
      box("show outliers", settings, "outliers", refresh),
      box("zoom all together", state, "together", () => setZoom({}, state.sharedZoom)), resetZoom);
    tools.setAttribute("role", "group");
    tools.setAttribute("aria-label", "Curves");
    area.prepend(tools, readOut);
    let typing = 0;
    filter.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        state.filter = filter.value;
        applyFilter();
      }, 120);
    });
    resetZoom.addEventListener("click", () => {
      state.sharedZoom = null;
      for (const plot of plots) plot.zoom = null;
      refresh();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!runFilter.contains(event.target)) runFilter.open = false;
    });
    (window.requestIdleCallback ?? setTimeout)(readRuns);
  };

  // ---- pointer and keys: one listener for all plots ------------------------------------------
  const plotUnder = (event) => {
    const plot = plotOf.get(event.target.closest?.("figure.plot"));
    return plot?.metadata && plot.svg.contains(event.target) ? plot : null;
  };
  const pixelOf = (plot, event) =>
    new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.svg.getScreenCTM().inverse());

  const listenToPointer = () => {
    let shown = null; // the plot that is read out
    let drag = null; // { plot, from, range, selection }
    const stretch = (event) => {
      const { plot, from, selection } = drag;
      const { left, right, top, bottom, value } = plot.shownScales;
      const ends = [from, pixelOf(plot, event).x].map((px) => Math.max(left, Math.min(right, px)));
      const [low, high] = ends.sort((a, b) => a - b);
      if (high - low < 5 && !selection.parentNode) return;
      if (!selection.parentNode) {
        plot.hideReadOut();
        plot.svg.append(selection);
        area.setPointerCapture(event.pointerId);
      }
      const box = { x: low, y: top, width: high - low, height: bottom - top };
      for (const [key, pixels] of Object.entries(box)) selection.setAttribute(key, pixels.toFixed(1));
      drag.range = high - low < 5 ? null : [value(low), value(high)];
    };
    const release = (isDone) => {
      if (!drag) return;
      const { plot, range, selection } = drag;
      drag = null;
      selection.remove();
      if (isDone && range) setZoom(plot, { mode: plot.mode, range });
    };
    area.addEventListener("pointermove", (event) => {
      if (drag) {
        stretch(event);
        return;
      }
      const plot = plotUnder(event);
      if (shown && shown !== plot) shown.hideReadOut();
      shown = plot && !plot.isSparkline ? plot : null;
      const { x, y } = shown ? pixelOf(shown, event) : {};
      shown?.readOutAt(x, y);
    });
    area.addEventListener("pointerdown", (event) => {
      const plot = plotUnder(event);
      if (!plot || plot.isSparkline || event.button !== 0) return;
      drag = { plot, from: pixelOf(plot, event).x, range: null, selection: shape("rect", { class: "selection" }) };
    });
    area.addEventListener("pointerup", () => release(true));
    area.addEventListener("pointercancel", () => release(false));
    area.addEventListener("pointerleave", () => shown?.hideReadOut());
    area.addEventListener("click", (event) => {
      const plot = plotUnder(event);
      if (plot?.isSparkline) resize(plot);
    });
    area.addEventListener("dblclick", (event) => {
      const plot = plotUnder(event);
      if (plot?.zoom) setZoom(plot, null);
    });
  };

  const listenToKeys = () => {
    const keysOf = (plot) => (plot.isSparkline ? { Enter: resize, " ": resize } : {
      ArrowLeft: () => plot.moveCursor(-1, 0),
      ArrowRight: () => plot.moveCursor(1, 0),
      ArrowUp: () => plot.moveCursor(0, -1),
      ArrowDown: () => plot.moveCursor(0, 1),
      Home: () => plot.moveCursor(-Infinity, 0),
      End: () => plot.moveCursor(Infinity, 0),
      Enter: resize,
      Escape: () => {
        plot.hideReadOut();
        setZoom(plot, null);
      },
    });
    area.addEventListener("keydown", (event) => {
      const plot = plotUnder(event);
      if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
      const action = keysOf(plot)[event.key];
      if (!action) return;
      event.preventDefault();
      action(plot);
    });
    area.addEventListener("focusin", (event) => {
      const plot = plotUnder(event);
      if (plot && !plot.isSparkline && event.target.matches(":focus-visible")) plot.moveCursor(0, 0);
    });
    area.addEventListener("focusout", (event) => plotUnder(event)?.hideReadOut());
  };

  // ---- one step for all images ---------------------------------------------------------------
  const buildImageTools = () => {
    const images = [...document.querySelectorAll("figure.logged-image[data-step]")];
    const stepOf = (image) => Number(image.dataset.step);
    const steps = [...new Set(images.map(stepOf))].sort((a, b) => a - b);
    if (steps.length < 2) return;
    const streams = new Map(); // the images of one tag of one run
    for (const image of images) {
      const key = JSON.stringify([image.dataset.run, image.dataset.tag]);
      streams.set(key, [...(streams.get(key) ?? []), image]);
    }
    const slider = element("input", { type: "range", min: 0, max: steps.length - 1 });
    const chosen = element("output");
    const last = steps.length - 1;
    slider.value = state.imageStep === null ? last : steps.findLastIndex((step) => step <= state.imageStep);
    const show = () => {
      const step = steps[slider.value];
      slider.disabled = state.allImages;
      slider.setAttribute("aria-valuetext", `step ${formatStep(step)}`);
      chosen.textContent = state.allImages ? "all" : formatStep(step);
      for (const stream of streams.values()) {
        const past = stream.filter((image) => stepOf(image) <= step);
        const newest = past.reduce((best, image) => (best && stepOf(best) > stepOf(image) ? best : image), null);
        for (const image of stream) image.hidden = !state.allImages && image !== newest;
      }
    };
    slider.addEventListener("input", () => {
      // At its end the slider stays at the newest step when a reload brings more.
      state.imageStep = Number(slider.value) === last ? null : steps[slider.value];
      show();
    });
    const tools = element("div", { className: "image-tools" },
      element("label", {}, "Step ", slider), chosen, box("all steps", state, "allImages", show));
    (images[0].closest(".image-grid") ?? images[0]).before(tools);
    show();
  };

  // ---- start ---------------------------------------------------------------------------------
  for (const fold of folds()) fold.open = stored.open?.[foldName(fold)] ?? fold.open;
  if (area) {
    for (const plot of plots) {
      plot.zoom = stored.zooms?.[plot.id] ?? null;
      plot.figure.classList.toggle("large", plot.isLarge);
      observer.observe(plot.figure);
    }
    buildTools();
    applyFilter();
    listenToPointer();
    listenToKeys();
    addEventListener("resize", refresh);
    refresh();
  }
  buildImageTools();
  restorePlace();

  // A page that `reportgen watch` keeps up to date has a stamp; live.js beside it has the newest.
  const stamp = document.documentElement.dataset.live;
  if (stamp) {
    const poll = setInterval(() => {
      const script = element("script", { src: `live.js?${Date.now()}` });
      script.onload = script.onerror = () => script.remove();
      document.head.append(script);
    }, 1000);
    window.reportgenLive = (newest) => {
      if (newest === "") clearInterval(poll);
      else if (newest !== stamp) location.reload();
    };
  }
})();
