/* The laboratory: requests, a policy, a machine, and what comes of them, in the reader's browser. A link holds the
   whole experiment; the run before stays beside the newest one. */
"use strict";
(() => {
  const { ask, restart, clean, make, kept, keep, editorOf, base } = window.courseLive;
  const KEY = "chunkprefill:lab";
  const MINE = `# A policy decides: {request: tokens} for the next step. It may only look.
class Policy:
    def schedule(self, state):
        budget, tokens = 512, {}
        for seq in state.running:          # who decodes goes first
            if seq.decoding and budget:
                tokens[seq.rid] = 1
                budget -= 1
        for seq in [*state.running, *state.waiting]:   # then chunks, in what is left
            if seq.rid not in tokens and budget:
                tokens[seq.rid] = min(seq.pending, budget)
                budget -= tokens[seq.rid]
        return cp.Plan(tokens)
`;

  const MOST_BYTES = 4e6; // of an experiment, a file, what a link unpacks to

  /** What a link holds. A few bytes can unpack to gigabytes: reading ends at MOST_BYTES. */
  const unpacked = async (word) => {
    const bytes = Uint8Array.from(atob(word.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
    const parts = [];
    let got = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      got += value.length;
      if (got > MOST_BYTES) { await reader.cancel(); throw new Error("too large"); }
      parts.push(value);
    }
    return new Blob(parts).text();
  };
  const packed = async (text) => {
    const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
    const out = new Uint8Array(await new Response(stream).arrayBuffer());
    let word = "";
    for (const byte of out) word += String.fromCharCode(byte);
    return btoa(word).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };

  // An experiment comes out of a link or a file that someone else may have made: only what a form can hold is taken.
  const objectOf = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
  const has = (object, key) => typeof key === "string" && Object.hasOwn(object, key);
  const simple = (value) => ["string", "number", "boolean"].includes(typeof value);

  const field = (label, control, hint = "") => {
    const box = make("label", { class: "cp-field" });
    box.append(make("span", {}, label), control);
    if (hint) box.append(make("small", {}, hint));
    return box;
  };
  const select = (options, value) => {
    const control = make("select");
    for (const option of options) control.append(make("option", option === value ? { selected: "" } : {}, option));
    return control;
  };
  const number = (value, more = {}) => make("input", { type: "number", value: value ?? "", ...more });

  const FORMS = "live/lab.json"; // what the forms offer
  /** What the forms offer; null where it cannot be had, and `root` says why. */
  const offered = async (root, what) => {
    let why = " needs a page that comes from a server, and not from a folder: its files cannot be fetched here.";
    if (location.protocol !== "file:") {
      try {
        const answer = await fetch(new URL(FORMS, base));
        if (!answer.ok) throw new Error(String(answer.status));
        return await answer.json();
      } catch (error) {
        why = ` could not fetch ${FORMS} (${error.message}): check the connection and load the page again.`;
      }
    }
    root.append(make("p", { role: "alert" }, what + why));
    return null;
  };

  let touched = false; // Python has run code of someone else's

  const lab = async (root) => {
    const options = await offered(root, "The laboratory");
    if (!options) return;
    const form = make("form", { class: "cp-lab-form" });

    // requests
    const requests = make("textarea", { rows: "8", spellcheck: "false", wrap: "off", "aria-label": "Requests: name, arrival in s, prompt tokens, output tokens" });
    const scenario = select(["Choose a scenario", ...Object.keys(options.scenarios)]);
    scenario.addEventListener("change", () => { if (options.scenarios[scenario.value]) requests.value = options.scenarios[scenario.value]; });
    requests.addEventListener("dragover", (event) => event.preventDefault());
    const isTooLarge = (what, size) => {
      if (size > MOST_BYTES) told(`${what} has ${(size / 1e6).toFixed(1)} MB; at most ${MOST_BYTES / 1e6} MB can be read here.`);
      return size > MOST_BYTES;
    };
    const read = async (file) => {
      if (isTooLarge(file.name, file.size)) return;
      const text = await file.text();
      let whole = {};
      try { whole = objectOf(JSON.parse(text)); } catch { /* a table */ }
      if (!has(whole, "policy") && !has(whole, "machine")) { requests.value = text; told(`${file.name} was read.`); return; }
      set(whole, true); // a whole experiment, as saved here
      if (!foreign) told(`${file.name} was read: requests, policy and machine.`);
    };
    requests.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files[0]) return;
      event.preventDefault();
      read(event.dataTransfer.files[0]);
    });
    const pick = make("input", { type: "file", accept: ".csv,.json,.jsonl,.txt" });
    pick.addEventListener("change", () => { if (pick.files[0]) read(pick.files[0]); });
    const first = make("fieldset");
    first.append(make("legend", {}, "Requests"), field("Scenario", scenario),
      field("One a line: name, arrival in s, prompt tokens, output tokens", requests, `At most ${options.most.toLocaleString("en-US")}. A trace of Azure's or Mooncake's, a recorded run, a benchmark's or a probe's JSON can be pasted or dropped here.`),
      field("Or a file", pick, "Also an experiment that was saved here."));

    // policy
    const own = "Written by you";
    const theirOwn = "Written by someone else"; // what the same choice is called while its code came in a link or a file
    const policy = select([...Object.keys(options.policies), own], "ChunkedPrefill");
    const settings = make("div", { class: "cp-fields" });
    const codeBox = make("div", { id: "cp-lab-code" });
    let foreign = false; // the code came in a link or a file
    const [place, code] = editorOf(codeBox, MINE, "the policy", { mine: () => !foreign, follows: false });
    const warning = make("p", { class: "cp-foreign", role: "alert" });
    const back = make("button", { type: "button", class: "cp-reset" }, "Show my own code instead");
    warning.hidden = back.hidden = true;
    codeBox.append(warning, back, place);
    codeBox.hidden = true;
    let inputs = {};
    const defaults = { token_budget: 512, chunk: 512, max_tokens: 8192, batch_size: 8, max_num_batched_tokens: 512 };
    const offer = (given) => {
      given = objectOf(given);
      settings.replaceChildren();
      inputs = {};
      codeBox.hidden = policy.value !== own;
      for (const [name, value] of options.policies[policy.value] || []) {
        if (value !== null && typeof value === "object") continue;
        const at = (has(given, name) && simple(given[name]) ? given[name] : value) ?? defaults[name] ?? "";
        let control;
        if (typeof value === "boolean") { control = make("input", { type: "checkbox" }); control.checked = Boolean(at); }
        else if (name === "order") control = select(["arrival", "shortest", "priority", "hrrn"], String(at));
        else if (typeof value === "string") control = make("input", { value: at });
        else control = number(at, { step: "any" });
        inputs[name] = control;
        settings.append(field(name, control));
      }
    };
    policy.addEventListener("change", () => offer());
    const second = make("fieldset");
    second.append(make("legend", {}, "Policy"), field("Policy", policy), settings, codeBox);

    // machine
    const machine = {
      model: select(options.models, "llama-3-8b"), device: select(options.devices, "h100"), dtype: select(["bf16", "fp16", "fp8", "int4", "fp32"], "bf16"),
      tp: number(1, { min: 1, max: 64 }), blocks: number("", { min: 1, placeholder: "never runs out" }), step_us: number(0, { min: 0, step: "any" }),
      request_us: number(0, { min: 0, step: "any" }), overlap: make("input", { type: "checkbox" }),
    };
    const words = { model: "Model", device: "Device", dtype: "Weights", tp: "Tensor parallel", blocks: "Cache blocks of 16 tokens", step_us: "Scheduling, µs a step",
      request_us: "Scheduling, µs a request", overlap: "Schedule while the step before runs" };
    const third = make("fieldset");
    const grid = make("div", { class: "cp-fields" });
    for (const [name, control] of Object.entries(machine)) grid.append(field(words[name], control));
    third.append(make("legend", {}, "Machine"), grid);

    const bar = make("p", { class: "cp-bar" });
    const go = make("button", { type: "submit", class: "cp-run" }, "Run"), halt = make("button", { type: "button", class: "cp-stop" }, "Stop");
    const link = make("button", { type: "button" }, "Copy link"), save = make("button", { type: "button" }, "Save as JSON");
    halt.hidden = true;
    const status = make("span", { class: "cp-said", role: "status" });
    bar.append(go, halt, link, save, status);
    const told = (text) => { if (status.textContent !== text) status.textContent = text; };
    const results = make("div", { class: "cp-lab-results" });
    // What came from an exercise or with a link stands screens below the page's top on a phone: this leads to it.
    const came = make("p", { class: "cp-came", role: "status" }), lead = make("button", { type: "button", class: "cp-reset" }, "Go to Run");
    lead.addEventListener("click", () => { bar.scrollIntoView({ block: "center" }); go.focus({ preventScroll: true }); });
    const arrived = (words) => {
      came.replaceChildren(words, " ", lead);
      form.prepend(came);
      came.scrollIntoView({ block: "center" });
    };
    form.append(first, second, third, bar);
    root.append(form, results);

    // Text that no run would take is not pasted: laying it out would freeze the page, and no storage would keep it.
    form.addEventListener("paste", (event) => {
      if (!isTooLarge("What you pasted", event.clipboardData.getData("text/plain").length)) return;
      event.preventDefault();
      event.stopPropagation();
    }, { capture: true });

    const value = (control) => (control.type === "checkbox" ? control.checked : control.type === "number" ? (control.value === "" ? null : Number(control.value)) : control.value);
    const experiment = () => ({
      requests: requests.value,
      policy: policy.value === own ? { code: code.text() } : { name: policy.value, args: Object.fromEntries(Object.entries(inputs).map(([name, control]) => [name, value(control)])) },
      machine: Object.fromEntries(Object.entries(machine).map(([name, control]) => [name, value(control)])),
    });
    // Code that came in a link or a file is someone else's: that is said above it, and on the button that runs it.
    // It stays so while it is edited; what it left behind in Python is gone before anything else runs.
    const mark = (yes) => {
      foreign = yes;
      warning.hidden = back.hidden = !foreign;
      const written = policy.options[policy.options.length - 1];
      [written.value, written.textContent] = [own, foreign ? theirOwn : own];
      warning.textContent = foreign
        ? "Someone else wrote this code: it came with a link or a file. Read it before you run it. It runs without network and page." : "";
      mind();
    };
    const theirs = () => foreign && policy.value === own;
    const mind = () => { go.textContent = theirs() ? "Run someone else's code" : "Run"; };
    policy.addEventListener("change", mind);
    back.addEventListener("click", () => { mark(false); code.show(code.kept() ?? MINE); });

    /** `outside`: from a link or a file. `newest`: what this tab held last, where a run may be older than what was typed since. */
    const set = (given, outside, newest = false) => {
      given = objectOf(given);
      const first = Object.values(options.scenarios)[0], chosen = objectOf(given.policy), made = objectOf(given.machine);
      requests.value = typeof given.requests === "string" ? given.requests : first;
      const written = typeof chosen.code === "string" ? chosen.code : "";
      policy.value = written ? own : has(options.policies, chosen.name) ? chosen.name : "ChunkedPrefill";
      mark(Boolean(written) && (outside || given.foreign === true));
      if (written && (foreign || newest || code.kept() === null)) code.show(written);
      offer(chosen.args);
      for (const [name, control] of Object.entries(machine)) {
        const at = has(made, name) ? made[name] : undefined;
        if (!simple(at)) continue;
        if (control.type === "checkbox") control.checked = at === true;
        else if (control.localName !== "select") control.value = String(at);
        else if ([...control.options].some((option) => option.value === at)) control.value = at;
      }
      if (foreign) told("Someone else wrote this policy's code. Read it before you press Run.");
    };

    // What is not run yet outlives a reload too, in this tab alone: another tab has an experiment of its own.
    let soon, whole = false; // whether the form holds an experiment yet
    addEventListener("cp-cleared", () => (whole = false)); // what the reader cleared is not kept once more on leaving
    const note = () => {
      if (!whole) return;
      try { sessionStorage.setItem(KEY, JSON.stringify({ ...experiment(), foreign: theirs(), at: location.hash })); }
      catch (error) {
        if (error.name === "QuotaExceededError") told("This browser cannot keep so large an experiment: save it as JSON before you leave the page.");
      }
    };
    for (const type of ["input", "change"]) form.addEventListener(type, () => { clearTimeout(soon); soon = setTimeout(note, 300); });
    addEventListener("pagehide", () => { clearTimeout(soon); note(); });
    const again = ["reload", "back_forward"].includes(performance.getEntriesByType("navigation")[0]?.type);
    const noted = () => { // a link that is followed anew shows what it holds
      try {
        const found = objectOf(JSON.parse(sessionStorage.getItem(KEY)));
        return found.at === location.hash && (again || !location.hash) ? found : null;
      } catch { return null; }
    };

    let before, mine = location.hash, n_runs = 0, halted;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (go.disabled) return;
      const what = experiment();
      // The same words whoever wrote the code, because a link must give the same picture to each who opens it.
      what.label = policy.value === own ? "A policy in code" : `${policy.value} ${Object.values(what.policy.args).filter((v) => v !== null && v !== "" && v !== false).slice(0, 2).join(", ")}`;
      const strange = theirs();
      if (touched && !strange) restart();
      touched = strange;
      keep(KEY, JSON.stringify({ ...what, foreign: strange }));
      go.disabled = true;
      halt.hidden = false;
      try {
        halted = new AbortController();
        const reply = await ask({ ask: "lab", experiment: what }, told, 300, halted.signal);
        if (reply.error || reply.wrong) { told("✗ Not run."); results.prepend(make("p", { class: "cp-stopped", role: "alert" }, reply.wrong || reply.error)); return; }
        for (const old of results.querySelectorAll(".cp-stopped")) old.remove();
        n_runs += 1; // what was refused, or never reached Python, was no run
        const box = make("section", { class: "cp-lab-run", "aria-label": what.label });
        box.append(make("h3", {}, `Run ${n_runs}`), clean(reply.html));
        results.replaceChildren(box);
        if (before) { before.classList.add("cp-lab-before"); results.append(make("p", {}, "The run before:"), before); }
        before = box.cloneNode(true);
        told("✓ Served.");
      } catch (error) {
        told(error.message === "stopped" ? "Stopped." : error.message === "late" ? "It had not finished after 300 s and was stopped." : error.message);
      } finally {
        go.disabled = false;
        halt.hidden = true;
      }
    });
    halt.addEventListener("click", () => halted?.abort());
    link.addEventListener("click", async () => {
      mine = `#e=${await packed(JSON.stringify(experiment()))}`;
      location.hash = mine;
      try { await navigator.clipboard.writeText(location.href); told("The link is in the clipboard: it holds the whole experiment."); }
      catch { told("The page's address now holds the whole experiment."); }
    });
    save.addEventListener("click", () => {
      const url = URL.createObjectURL(new Blob([JSON.stringify(experiment(), null, 1)], { type: "application/json" }));
      make("a", { href: url, download: "experiment.json" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });

    const word = new URLSearchParams(location.hash.slice(1)).get("e");
    let given = {};
    try {
      const left = noted();
      given = left ?? JSON.parse(word ? await unpacked(word) : kept(KEY) || "{}");
      set(given, Boolean(word) && !left, Boolean(left));
      if (left?.exercise) arrived("Your policy of the exercise is in the form.");
      else if (word && !again) arrived(`This experiment came with a link.${foreign ? " Someone else wrote its policy: read the code below before you run it." : ""}`);
    } catch {
      set({}, false);
      if (word) arrived("The link's experiment cannot be read; here is a new one.");
    }
    whole = true;
    addEventListener("hashchange", () => { if (location.hash.startsWith("#e=") && location.hash !== mine) location.reload(); });
    root.classList.add("cp-live");
  };

  // --- what budget should I set? -------------------------------------------------------------------------
  const advice = async (root) => {
    const options = await offered(root, "This form");
    if (!options) return;
    const usual = options.advice;
    const formats = ["bf16", "fp16", "fp8", "int4", "fp32"];
    const controls = {
      model: select(options.models, usual.model), device: select(options.devices, usual.device), dtype: select(formats, "bf16"),
      kv_dtype: select(["as activations", "fp8"], "as activations"), tp: number(1, { min: 1, max: 64 }),
      chats_per_s: number(usual.chats_per_s, { min: 0, step: "any" }), chat_prompt: number(usual.chat[0], { min: 1 }), chat_output: number(usual.chat[1], { min: 1 }),
      documents_per_s: number(usual.documents_per_s, { min: 0, step: "any" }), document_prompt: number(usual.document[0], { min: 1 }),
      document_output: number(usual.document[1], { min: 1 }), n: number(usual.n, { min: 20, max: usual.most }),
      elsewhere: make("input", { type: "checkbox" }),
    };
    const words = {
      model: "Model", device: "Device", dtype: "Weights", kv_dtype: "Cache", tp: "Tensor parallel", chats_per_s: "Chats a second",
      chat_prompt: "Prompt tokens of a chat", chat_output: "Output tokens of a chat", documents_per_s: "Documents a second",
      document_prompt: "Prompt tokens of a document", document_output: "Output tokens of a document", n: `Requests simulated, at most ${usual.most.toLocaleString("en-US")}`,
      elsewhere: "Also say what would change the advice (several times as long)",
    };
    const form = make("form", { class: "cp-lab-form" }), set = make("fieldset"), grid = make("div", { class: "cp-fields" });
    for (const [name, control] of Object.entries(controls)) grid.append(field(words[name], control));
    const promises = make("textarea", { rows: "3", spellcheck: "false" });
    promises.value = usual.promises;
    set.append(make("legend", {}, "Server, load and promises"), grid,
      field("Promises, one a line", promises, "METRIC [chats|documents] AT BOUND, such as: tbt p99 50ms, or ttft chats p90 1s"));
    const bar = make("p", { class: "cp-bar" }), go = make("button", { type: "submit", class: "cp-run" }, "Advise");
    const halt = make("button", { type: "button", class: "cp-stop" }, "Stop"), status = make("span", { class: "cp-said", role: "status" });
    const out = make("div", { class: "cp-lab-results" });
    halt.hidden = true;
    let halted;
    halt.addEventListener("click", () => halted?.abort());
    bar.append(go, halt, status);
    form.append(set, bar);
    root.append(form, out);
    const told = (text) => { if (status.textContent !== text) status.textContent = text; };
    const value = (control) => (control.type === "checkbox" ? control.checked : control.type === "number" ? Number(control.value) : control.value);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (go.disabled) return;
      const wanted = Object.fromEntries(Object.entries(controls).map(([name, control]) => [name, value(control)]));
      wanted.promises = promises.value;
      if (wanted.kv_dtype !== "fp8") wanted.kv_dtype = "";
      go.disabled = true;
      halt.hidden = false;
      if (touched) restart();
      touched = false;
      try {
        halted = new AbortController();
        const reply = await ask({ ask: "advice", wanted }, told, 600, halted.signal);
        if (reply.error || reply.wrong) { told("✗ Not run."); out.replaceChildren(make("p", { class: "cp-stopped", role: "alert" }, reply.wrong || reply.error)); return; }
        out.replaceChildren(clean(reply.html));
        told(reply.best ? `✓ Set a budget of ${reply.best.toLocaleString("en-US")} tokens a step.` : "✗ No budget keeps every promise.");
      } catch (error) {
        told(error.message === "stopped" ? "Stopped." : error.message === "late" ? "It had not finished after 600 s and was stopped." : error.message);
      } finally {
        go.disabled = false;
        halt.hidden = true;
      }
    });
    root.classList.add("cp-live");
  };

  const begin = () => {
    document.querySelectorAll("[data-lab]").forEach(lab);
    document.querySelectorAll("[data-advice]").forEach(advice);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
