/* Python in the page. Each code exercise gets an editor and a Run button; Python is fetched when a reader first
   presses Run, and never before. The reader's code runs in a worker inside a sandboxed frame that has no network,
   no storage and no page: what it sends back is words, and HTML of which only harmless tags are kept. */
"use strict";
(() => {
  const BASE = new URL(".", document.currentScript.src);
  const LIMIT_S = 10; // for one run, whatever it does
  const KEY = "chunkprefill:code:";
  const FILES = {
    "pyodide.mjs": "vendor/pyodide/pyodide.mjs",
    "pyodide.asm.mjs": "vendor/pyodide/pyodide.asm.mjs",
    "pyodide.asm.wasm": "vendor/pyodide/pyodide.asm.wasm",
    "python_stdlib.zip": "vendor/pyodide/python_stdlib.zip",
    "pyodide-lock.json": "vendor/pyodide/pyodide-lock.json",
    "packages.zip": "live/packages.zip",
    "worker.js": "live-worker.js",
  };
  const WHY_NOT =
    "Python cannot run in this page here: it takes a browser with WebAssembly, and a page that comes from a server and " +
    "not from a folder. Everything else on the page works; the notebook runs the exercise too.";
  // 12,000: a browser's own way of writing numbers takes a phone longer than all else that is done when a page opens.
  const grouped = (value) => String(value).replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));
  const make = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text) node.textContent = text;
    return node;
  };
  const kept = (key) => {
    try { return localStorage.getItem(key); } catch { return null; }
  };
  const keep = (key, value) => {
    try { value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value); return true; } catch { return false; }
  };

  // The same page may be open twice: what is typed in one is shown by the other, so that neither overwrites what it
  // has not seen. A page that comes back from the browser's memory has missed what happened meanwhile.
  const followers = new Map(); // key -> what shows its text
  addEventListener("storage", ({ key, newValue }) => followers.get(key)?.(newValue));
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) followers.forEach((show, key) => { if (kept(key) !== null) show(kept(key)); });
  });

  // --- HTML from Python: only what the course's own forms are made of ----------------------------------
  const TAGS = new Set(
    ("a b br caption code details div em figcaption figure li ol p pre small span strong style sub summary sup table tbody td th " +
     "thead tr ul svg g path rect line circle ellipse polyline polygon text tspan title desc defs pattern marker clippath use")
      .split(" ").filter((tag) => tag !== "a" && tag !== "style" && tag !== "use"));
  const ATTRIBUTES = new Set(
    ("class id role scope tabindex aria-label aria-hidden viewbox width height x y x1 x2 y1 y2 dx dy cx cy r rx ry d points fill " +
     "fill-opacity stroke stroke-width stroke-dasharray stroke-opacity opacity transform font-size font-family font-weight text-anchor " +
     "dominant-baseline colspan rowspan open xmlns preserveaspectratio style").split(" "));
  const STYLES = /^(?:\s*(?:width|max-width|height|overflow(?:-x)?|margin|text-align|text-anchor|color|fill|font-[a-z]+|opacity|display|min-width)\s*:\s*[-#%.,\w\s]*;?)*$/i;

  const MOST_HTML = 8e6; // characters: more than any picture of the course, less than what freezes a page
  const CLASSES = /^(?:cp-|table$|pst-)/; // those of the course's forms, and of its tables
  const clean = (html) => {
    if (typeof html !== "string" || html.length > MOST_HTML) throw new Error("What Python sent back is too large to be shown.");
    const parsed = new DOMParser().parseFromString(html, "text/html");
    const walk = (node) => {
      for (const child of [...node.children]) {
        if (!TAGS.has(child.localName.toLowerCase())) { child.remove(); continue; }
        for (const { name, value } of [...child.attributes]) {
          const low = name.toLowerCase();
          const harmless = ATTRIBUTES.has(low) && !/url\s*\(|javascript:|data:|\\/i.test(value); // u\72l( is url( too
          if (!harmless || (low === "style" && !STYLES.test(value))) child.removeAttribute(name);
          else if (low === "class") child.setAttribute("class", value.split(/\s+/).filter((word) => CLASSES.test(word)).join(" "));
          else if (low === "id") child.setAttribute("id", `live-${value}`); // the page's own ids stay its own
        }
        walk(child);
      }
    };
    walk(parsed.body);
    const box = document.createDocumentFragment();
    box.append(...parsed.body.childNodes);
    return box;
  };

  // --- Python: fetched once, in a frame without rights, started again when it had to be stopped --------
  const POLICY = "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:";
  const FRAME = `<!doctype html><meta http-equiv="Content-Security-Policy" content="${POLICY}"><script>
    let worker;
    const address = (part) => URL.createObjectURL(new Blob([part], { type: "text/javascript" }));
    const up = (words) => parent.postMessage(words, "*");
    addEventListener("message", ({ source, data }) => {
      if (source !== parent) return;
      if (data.boot) {
        worker?.terminate();
        const { files } = data.boot;
        worker = new Worker(address(files["worker.js"]));
        let last = 0; // hostile code may send progress without end: the page hears ten words a second
        worker.onmessage = ({ data }) => {
          if (data && data.progress !== undefined && performance.now() - last < 100) return;
          last = performance.now();
          up(data);
        };
        worker.onerror = (event) => up({ failed: event.message || "the worker could not be started" });
        worker.postMessage({ files });
      } else if (data.stop) { worker?.terminate(); worker = undefined; }
      else worker?.postMessage(data);
    });
    up({ framed: true });
  </` + "script>";

  let files, frame, ready, telling, waiting = new Map(), number = 0;

  const megabytes = (n) => (n / 1e6).toFixed(1);
  const fetchAll = async (told) => {
    const fetched = async (path) => {
      const answer = await fetch(new URL(path, BASE)).catch((error) => ({ status: error.message }));
      if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
      return answer;
    };
    const sizes = await (await fetched("live/sizes.json")).json();
    const total = Object.values(sizes).reduce((a, b) => a + b, 0);
    let got = 0;
    const one = async ([name, path]) => {
      const answer = await fetched(path);
      const reader = answer.body.getReader(), parts = [];
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        got += value.length;
        told(`Fetching Python: ${megabytes(Math.min(got, total))} of ${megabytes(total)} MB.`);
      }
      return [name, await new Blob(parts).arrayBuffer()];
    };
    return Object.fromEntries(await Promise.all(Object.entries(FILES).map(one)));
  };

  const framed = () => new Promise((go, fail) => {
    frame = make("iframe", { sandbox: "allow-scripts", title: "Python", "aria-hidden": "true", tabindex: "-1" });
    frame.hidden = true;
    frame.srcdoc = FRAME;
    const timer = setTimeout(() => {
      frame.remove();
      frame = undefined; // the next press makes another
      fail(new Error("The frame that Python runs in did not load. Press Run again."));
    }, 20000);
    addEventListener("message", ({ source, data }) => {
      if (source !== frame?.contentWindow || typeof data !== "object" || data === null) return;
      if (data.framed) { clearTimeout(timer); go(); return; }
      if (typeof data.progress === "string") { telling?.(data.progress.slice(0, 200)); return; }
      const settle = waiting.get(data.ready || data.number === undefined ? "boot" : data.number);
      settle?.(data);
    });
    document.body.append(frame);
  });

  const sent = (key, message, limit_s) => new Promise((go, fail) => {
    const timer = limit_s && setTimeout(() => { waiting.delete(key); fail(new Error("late")); }, limit_s * 1000);
    waiting.set(key, (data) => {
      clearTimeout(timer);
      waiting.delete(key);
      data.failed ? fail(new Error(data.failed)) : go(data);
    });
    frame.contentWindow.postMessage(message, "*");
  });

  const start = (told) => {
    ready ??= (async () => {
      if (!/^https?:$/.test(location.protocol) || typeof WebAssembly !== "object") throw new Error(WHY_NOT);
      try {
        files ??= await fetchAll(told);
      } catch (error) {
        throw new Error(`Python could not be fetched (${error.message}). Is there a connection? Press Run again; what you typed stays.`);
      }
      told("Starting Python.");
      if (!frame) await framed();
      await sent("boot", { boot: { files } }, 120);
    })();
    ready.catch(() => (ready = undefined)); // the next press tries again
    return ready;
  };

  /** Python is started anew with the next question; its files are not fetched again. */
  const restart = () => {
    frame?.contentWindow.postMessage({ stop: true }, "*");
    ready = undefined;
  };

  const asked = async (question, told, limit_s, halted, signal) => {
    if (signal?.aborted) throw new Error("stopped");
    await Promise.race([start(told), halted]);
    number += 1;
    telling = told;
    told("Running.");
    try {
      return (await Promise.race([sent(number, { number, question }, limit_s), halted])).reply;
    } catch (error) {
      restart();
      throw error;
    }
  };

  let turn = Promise.resolve(), n_asked = 0;
  /** Python's reply to `question`. Throws `late` after its time, `stopped` when `signal` says so; Python is then started
      anew. Python answers one question at a time: another one waits, and its time begins when it is asked. */
  const ask = (question, told, limit_s = LIMIT_S, signal = null) => {
    const halted = new Promise((_, fail) => signal?.addEventListener("abort", () => fail(new Error("stopped")), { once: true }));
    if (n_asked) told("Waiting for the run before this one.");
    n_asked += 1;
    const mine = turn.then(() => asked(question, told, limit_s, halted, signal)).finally(() => (n_asked -= 1));
    turn = mine.catch(() => {});
    return Promise.race([mine, halted]);
  };

  // --- an editor in each code exercise -----------------------------------------------------------------
  /** `mine`: whether what stands there is the reader's own, to be kept. `follows`: whether it shows what is typed elsewhere. */
  const editorOf = (box, starter, name, { mine = () => true, follows = true } = {}) => {
    const key = KEY + box.id, text = kept(key) ?? starter;
    const place = make("div", { class: "cp-editor" });
    const area = make("textarea", {
      "aria-label": `Your code for ${name}`, spellcheck: "false", autocapitalize: "off", autocorrect: "off", wrap: "off",
      rows: String(Math.min(24, Math.max(6, text.split("\n").length + 1))),
    });
    area.value = text;
    place.append(area);
    let safe = true; // whether the browser has kept what stands here
    let following = false; // what another tab typed is not kept again: by now it may have typed more
    const typed = (words) => { if (mine() && !following) safe = keep(key, words); };
    const api = {
      text: () => area.value, show: (words) => (area.value = words), kept: () => kept(key),
      reset: () => { api.show(starter); keep(key, null); },
    };
    if (follows) followers.set(key, (words) => {
      if (!safe || api.text() === (words ?? starter)) return;
      following = true;
      try { api.show(words ?? starter); } finally { following = false; }
    });
    area.addEventListener("input", () => typed(area.value));
    // Colours and indenting are worth 120 KB only to a reader who writes: they come with the first touch.
    area.addEventListener("focus", async () => {
      try {
        const { editor } = await import(new URL("vendor/codemirror/editor.js", BASE));
        if (!area.isConnected) return;
        const view = editor(place, {
          text: area.value, label: area.getAttribute("aria-label"), at: area.selectionStart,
          changed: typed, run: () => box.querySelector(".cp-run").click(),
        });
        area.remove();
        view.focus();
        api.text = view.text;
        api.show = view.set;
      } catch { /* from a folder: the plain text area stays */ }
    }, { once: true });
    return [place, api];
  };

  /** A Run button, a line that says what is going on, and a place for what comes of it. */
  const panel = (words) => {
    const bar = make("p", { class: "cp-bar" }), out = make("div", { class: "cp-out" });
    const run = make("button", { type: "button", class: "cp-run" }, words);
    const status = make("span", { class: "cp-said", role: "status" });
    const told = (text) => { if (status.textContent !== text) status.textContent = text; };
    bar.append(run, status);
    /** Ask, and show what is answered; what goes wrong is said. */
    const asking = async (box, question, show, limit_s = LIMIT_S) => {
      if (run.disabled) return;
      run.disabled = true;
      box.setAttribute("aria-busy", "true");
      try {
        const reply = await ask(question, told, limit_s);
        if (reply.error) throw new Error(reply.error);
        show(reply);
      } catch (error) {
        const late = error.message === "late";
        told(late ? "✗ Stopped." : "✗ Not run.");
        out.replaceChildren(make("p", { class: "cp-stopped" }, late
          ? `It had not finished after ${limit_s} s: does a loop never end, or take far too many steps? It was stopped; Python starts anew with the next Run.`
          : error.message));
      } finally {
        run.disabled = false;
        box.removeAttribute("aria-busy");
      }
    };
    return { bar, out, run, told, asking };
  };
  const verdict = (ok) => (ok === true ? "✓ Right." : ok === false ? "✗ Not yet." : "○ Not attempted.");

  /** A policy that is right can be seen at work: the laboratory opens with it, in place of the policy chosen there. */
  const toLab = (source) => {
    const line = make("p"), link = make("a", { class: "cp-to-lab", href: new URL("../book/lab.html", BASE) }, "See this policy's timeline in the laboratory");
    link.addEventListener("click", () => {
      let held = {};
      try { held = JSON.parse(sessionStorage.getItem("chunkprefill:lab") ?? kept("chunkprefill:lab")) ?? {}; } catch { /* none yet */ }
      try { sessionStorage.setItem("chunkprefill:lab", JSON.stringify({ ...held, policy: { code: source }, foreign: false, exercise: true, at: "" })); } catch { /* the laboratory opens with its own */ }
    });
    line.append(link);
    return line;
  };

  const exercise = (box) => {
    const id = box.id.replace(/^cp-/, ""), starter = box.dataset.starter;
    const name = box.querySelector(".cp-ask")?.firstChild?.textContent.trim() || id;
    const [place, code] = editorOf(box, starter, name);
    const { bar, out, run, told, asking } = panel("Run");
    const reset = make("button", { type: "button", class: "cp-reset" }, "Reset");
    run.after(reset);
    run.addEventListener("click", () => {
      if (!run.disabled) out.replaceChildren();
      asking(box, { ask: "check", id, source: code.text() }, (reply) => {
        if (reply.printed) out.append(make("p", { class: "cp-printed-head" }, "It printed:"), make("pre", { tabindex: "0" }, reply.printed));
        out.append(clean(reply.html));
        if (reply.ok === true && /^\s+def schedule\(/m.test(code.text())) out.append(toLab(code.text()));
        told(verdict(reply.ok));
      });
    });
    reset.addEventListener("click", () => { code.reset(); out.replaceChildren(); told("Your code was reset."); });
    const anchor = box.querySelector("details");
    for (const node of [place, bar, out]) anchor ? box.insertBefore(node, anchor) : box.append(node);
  };

  // --- explorers: any value between those that were recorded ----------------------------------------------
  const SLOW_S = 60; // for what the course's own code takes, not the reader's

  const explorer = (box, asked) => {
    const id = box.id.replace(/^cp-/, ""), sets = [...box.querySelectorAll(".cp-pills")];
    const { bar, out, run, told, asking } = panel("Draw it live");
    const inputs = new Map();
    const place = make("div", { class: "cp-any" }), voice = make("span", { class: "cp-voice", role: "status" });
    sets.forEach((set, i) => {
      const label = set.querySelector("legend").textContent, range = asked[label];
      if (!range) return;
      const [least, most, whole] = range;
      const input = make("input", { type: "number", min: least, max: most, step: whole ? 1 : "any", inputmode: whole ? "numeric" : "decimal" });
      const field = make("label", { class: "cp-any-field" });
      field.append(`${label}: any value from ${grouped(least)} to ${grouped(most)} `, input);
      input.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); run.click(); } });
      inputs.set(i, input);
      place.append(field);
    });
    const recorded = () => { box.classList.remove("cp-shows-live"); out.replaceChildren(); told(""); };
    run.addEventListener("click", () => {
      const settings = sets.map((set, i) => (inputs.get(i)?.value
        ? { value: Number(inputs.get(i).value) }
        : { at: [...set.querySelectorAll("input")].findIndex((one) => one.checked) }));
      asking(box, { ask: "explorer", id, settings }, (reply) => {
        out.replaceChildren(make("p", { class: "cp-live-mark" }, "live: computed in this page just now"), clean(reply.html));
        box.classList.add("cp-shows-live");
        told("Drawn.");
        voice.textContent = reply.text; // what the picture shows, for readers who do not see it
      }, SLOW_S);
    });
    sets.forEach((set, i) => set.addEventListener("change", () => { if (inputs.has(i)) inputs.get(i).value = ""; recorded(); }));
    place.append(bar, voice);
    box.querySelector(".cp-frames").before(place, out);
  };

  const explorers = async () => {
    const boxes = [...document.querySelectorAll(".cp-explorer")];
    if (!boxes.length || !/^https?:$/.test(location.protocol)) return; // from a folder the recorded frames stay
    try {
      const known = await (await fetch(new URL("live/explorers.json", BASE))).json();
      for (const box of boxes) {
        const id = box.id.replace(/^cp-/, "");
        if (!Object.hasOwn(known, id)) continue;
        if (typeof known[id] !== "string") explorer(box, known[id]);
        else box.querySelector(".cp-frames").before(make("p", { class: "cp-any cp-recorded-only" }, `Recorded values only: ${known[id]}.`));
      }
    } catch { /* the recorded frames stay */ }
  };

  // --- the clinic: a diagnosis with rows and settings of one's own ----------------------------------------
  const clinic = (box) => {
    const place = { seed: JSON.parse(box.dataset.seed), attempt: Number(box.dataset.attempt) };
    const { bar, out, run, told, asking } = panel("Diagnose it with Python");
    box.append(make("p", {}, "Name the cause, any rows and a fix, or try settings of your own: the case is replayed in this page."), bar, out);
    run.addEventListener("click", () => asking(box, { ask: "case", ...place }, (spec) => {
      bar.remove();
      out.remove();
      form(spec);
    }, SLOW_S));
    const choose = (label, options, first) => {
      const field = make("label", { class: "cp-field" }), control = make("select");
      control.append(make("option", { value: "" }, first));
      for (const [key, words] of Object.entries(options)) control.append(make("option", { value: key }, words));
      field.append(make("span", {}, label), control);
      return [field, control];
    };
    const form = ({ causes, rows, fixes, settings, words }) => {
      const OWN = "own";
      const [causeField, cause] = choose("What is wrong?", causes, "Not said yet");
      const evidence = make("details", { class: "cp-evidence-rows" });
      evidence.append(make("summary", {}, "Which rows say so?"));
      const boxes = Object.entries(rows).map(([key, text]) => {
        const label = make("label", {}), tick = make("input", { type: "checkbox", value: key });
        label.append(tick, " ", make("code", {}, key), ` ${text}`);
        evidence.append(label);
        return tick;
      });
      const [fixField, fix] = choose("What would you change?", { ...fixes, [OWN]: "Settings of your own" }, "Not said yet");
      const own = make("div", { class: "cp-fields" }), controls = {};
      for (const [name, value] of Object.entries(settings)) {
        const label = make("label", { class: "cp-field" });
        const control = words[name] ? make("select") : make("input", { type: "number", min: 1, value });
        for (const word of words[name] || []) control.append(make("option", word === value ? { selected: "" } : {}, word));
        controls[name] = control;
        label.append(make("span", {}, name.replace(/_/g, " ")), control);
        own.append(label);
      }
      own.hidden = true;
      fix.addEventListener("change", () => { own.hidden = fix.value !== OWN; });
      const changes = () => Object.fromEntries(Object.entries(controls)
        .map(([name, control]) => [name, control.type === "number" ? Number(control.value) : control.value])
        .filter(([name, value]) => value !== settings[name]));
      const check = panel("Check"), show = (reply) => {
        check.out.replaceChildren(clean(reply.html));
        check.told(verdict(reply.ok));
      };
      check.run.addEventListener("click", () => {
        const wanted = fix.value === OWN ? changes() : fix.value;
        const diagnosis = { cause: cause.value, evidence: boxes.filter((tick) => tick.checked).map((tick) => tick.value), fix: wanted };
        asking_(check, { ask: "diagnosis", ...place, diagnosis }, show);
      });
      const replay = make("button", { type: "button", class: "cp-reset" }, "Replay these settings");
      replay.addEventListener("click", () => asking_(check, { ask: "replay", ...place, changes: changes() }, (reply) => {
        check.out.replaceChildren(clean(reply.html));
        check.told(reply.ok ? "✓ Every promise is kept." : "✗ A promise is still broken.");
      }));
      own.append(replay);
      box.append(causeField, evidence, fixField, own, check.bar, check.out);
      cause.focus();
    };
    const asking_ = (at, question, show) => at.asking(box, question, show, SLOW_S);
  };

  window.courseLive = { ask, restart, clean, make, kept, keep, editorOf, panel, base: BASE };

  const begin = () => {
    document.querySelectorAll(".cp-exercise[data-starter]").forEach(exercise);
    document.querySelectorAll(".cp-clinic[data-seed]").forEach(clinic);
    explorers();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
