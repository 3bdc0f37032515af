/* What a page of the course does beyond HTML and CSS. Everything can be read and answered without it:
   it keeps predictions, plays orders, and says aloud what changed. */
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text) node.textContent = text;
    return node;
  };

  // --- saying what changed ---------------------------------------------------------------------------
  let voice;
  const say = (text) => {
    if (!voice) {
      voice = make("div", { class: "cp-voice", role: "status" });
      document.body.append(voice);
    }
    voice.textContent = "";
    setTimeout(() => (voice.textContent = text), 30); // the same words twice are still a change
  };

  // --- predictions: kept in this browser, shown again beside what was measured ------------------------
  const KEY = "chunkprefill:prediction:";
  const kept = (id) => {
    try { return localStorage.getItem(KEY + id); } catch { return null; }
  };
  const keep = (id, value) => {
    try { localStorage.setItem(KEY + id, value); return true; } catch { return false; }
  };

  // The same page may be open twice: what is answered in one is shown by the other. A page that comes back from the
  // browser's memory has missed what happened meanwhile.
  const followers = new Map(); // key -> what shows its value
  const follow = (key, show) => followers.set(key, show);
  addEventListener("storage", ({ key, newValue }) => followers.get(key)?.(newValue));
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) followers.forEach((show, key) => { try { show(localStorage.getItem(key)); } catch { /* nothing is kept */ } });
  });

  const fleeting = () => localStorage.fleeting === true; // what a page has where the browser refuses storage: first.js

  // A guess may be a number too. `chunkprefill_course/forms/guess.py` says the same in a notebook.
  const NEAR = 1.05;
  const offBy = (guess, found) => {
    const numbers = (found.match(/\d[\d,]*(?:\.\d+)?/g) || []).map((text) => Number(text.replace(/,/g, "")));
    const low = Math.min(...numbers), high = Math.max(...numbers);
    if (!numbers.length || low <= 0 || !(guess > 0 && guess < Infinity)) return "";
    if (low <= guess && guess <= high && low < high) return "within the range";
    const factor = guess < low ? low / guess : guess / high;
    if (factor <= NEAR) return "close";
    return `off by ${factor < 9.95 ? factor.toFixed(1) : Math.round(factor).toLocaleString("en-US")}×`;
  };
  const numberField = (id, unit, changed) => {
    const label = make("label", { class: "cp-number" }, "As a number, if you like: ");
    const input = make("input", { type: "number", min: "0", step: "any", inputmode: "decimal", value: kept(`${id}:number`) || "" });
    input.addEventListener("change", () => { keep(`${id}:number`, input.value); changed(); });
    label.append(input, ` ${unit}`);
    return label;
  };

  // What was measured stays covered until the reader has predicted, or asks to see it.
  const cover = (box) => {
    const id = box.dataset.recall;
    if (kept(id) || kept(`${id}:number`) || box.querySelector(".cp-cover")) return;
    const ask = make("div", { class: "cp-cover", role: "group", "aria-label": "Your prediction, before the answer" });
    ask.append(make("p", {}, "You have not predicted this yet. What do you think?"));
    const uncover = () => { ask.remove(); box.classList.remove("cp-covered"); };
    for (const row of all("li[data-key]", box)) {
      const button = make("button", { type: "button" }, row.querySelector(".cp-text").textContent);
      button.addEventListener("click", () => {
        keep(id, row.dataset.key);
        uncover();
        all(`[data-recall="${id}"]`).forEach(recall);
        say(box.querySelector(".cp-mine").textContent);
      });
      ask.append(button);
    }
    if (box.dataset.number) ask.append(numberField(id, box.dataset.number, () => {}));
    const show = make("button", { type: "button", class: "cp-show" }, "Show me");
    show.addEventListener("click", () => { uncover(); recall(box); });
    ask.append(show);
    box.prepend(ask);
    box.classList.add("cp-covered");
  };

  const recall = (box) => {
    const guess = kept(`${box.dataset.recall}:number`);
    if (kept(box.dataset.recall) || guess) { box.querySelector(".cp-cover")?.remove(); box.classList.remove("cp-covered"); }
    const id = box.dataset.recall, mine = kept(id), line = box.querySelector(".cp-mine");
    for (const row of all("li[data-key]", box)) row.classList.toggle("cp-yours", row.dataset.key === mine);
    const row = all("li[data-key]", box).find((item) => item.dataset.key === mine);
    line.removeAttribute("role"); // spoken when it changes, by `say`, not when the page loads
    line.textContent = "";
    if (row) {
      line.append(make("strong", {}, "You predicted: "), row.querySelector(".cp-text").textContent);
      line.append(" ", row.hasAttribute("data-right") ? "That is what was measured." : "That is not what was measured.");
    }
    if (guess && box.dataset.number) {
      const off = offBy(Number(guess), box.dataset.value);
      line.append(" Your number: ", make("strong", {}, `${guess} ${box.dataset.number}${off ? `, ${off}` : ""}.`));
    }
    if (!row && !guess) {
      line.append("You have made no prediction yet. ", make("a", { href: `#cp-${id}` }, "The question is further up."));
    }
  };

  const predict = (box) => {
    const id = box.dataset.id, mine = kept(id);
    const told = (input) => {
      const note = input.parentElement.querySelector(".cp-why");
      note.textContent = keep(id, input.value)
        ? `Kept ${fleeting() ? "until you leave this page" : "in this browser"}. You will see it again, beside the measured answer.`
        : "This browser keeps nothing, so remember it: the measured answer comes further down.";
      return note.textContent;
    };
    for (const input of all("input[type=radio]", box)) {
      if (input.value === mine) { input.checked = true; told(input); }
      input.addEventListener("change", () => {
        say(told(input));
        all(`[data-recall="${id}"]`).forEach(recall);
      });
    }
    follow(KEY + id, (key) => {
      all("input[type=radio]", box).forEach((input) => (input.checked = input.value === key));
      all(`[data-recall="${id}"]`).forEach(recall);
    });
    if (box.dataset.number) {
      const field = numberField(id, box.dataset.number, () => all(`[data-recall="${id}"]`).forEach(recall));
      box.querySelector("fieldset").append(field);
    }
  };

  // --- choices: the reply is shown by CSS; here it is spoken --------------------------------------------
  const choice = (box) => {
    for (const input of all("input[type=radio]", box)) {
      input.addEventListener("change", () => say(input.parentElement.querySelector(".cp-why").textContent));
    }
  };

  // --- orders: cards that are moved by button, key or drag, and played from a table of states -----------
  const ORDER = "chunkprefill:order:";
  const PAUSE = 900; // ms between two steps of an order that is played
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  const order = (box) => {
    const { states } = JSON.parse(box.querySelector(".cp-states").textContent);
    const list = box.querySelector(".cp-steps"), stage = box.querySelector(".cp-stage");
    const said = box.querySelector(".cp-said"), cards = () => [...list.children];
    const words = (card) => card.querySelector(".cp-text").textContent;
    let playing = 0;

    const show = (name, text) => {
      stage.innerHTML = states[name].picture;
      if (said.textContent !== text) said.textContent = text; // a status that is set anew is read out again
      if (name) said.scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
    };
    const clear = () => {
      playing += 1;
      cards().forEach((card) => { card.classList.remove("cp-done", "cp-broken"); card.querySelector(".cp-mark").textContent = ""; });
      show("", states[""].said);
    };
    const move = (card, to) => {
      const from = cards().indexOf(card), last = cards().length - 1;
      to = Math.max(0, Math.min(last, to));
      if (to === from) return;
      list.insertBefore(card, cards()[to + (to > from ? 1 : 0)] || null);
      try { localStorage.setItem(ORDER + box.dataset.id, cards().map((each) => each.dataset.key).join(" ")); } catch { /* not kept */ }
      clear();
      say(`“${words(card)}” is now number ${to + 1} of ${last + 1}.`);
    };

    const play = async () => {
      clear();
      const run = ++playing;
      let name = "", n = 0;
      for (const card of cards()) {
        n += 1;
        const next = states[name].next[card.dataset.key];
        const broken = typeof next !== "string";
        card.classList.add(broken ? "cp-broken" : "cp-done");
        card.querySelector(".cp-mark").textContent = broken ? "✗" : "✓";
        if (broken) return show(name, `✗ Number ${n}, “${words(card)}”, comes too early: ${next.broken}.`);
        name = next;
        show(name, n === cards().length ? `✓ This order works. ${states[name].said}` : states[name].said);
        if (!still.matches) await new Promise((go) => setTimeout(go, PAUSE));
        if (run !== playing) return;
      }
    };

    const first = cards();
    const arrange = (words) => {
      const keys = (words || "").split(" "), at = (card) => keys.indexOf(card.dataset.key);
      const whole = keys.length === first.length && first.every((card) => at(card) >= 0);
      list.append(...(whole ? [...first].sort((a, b) => at(a) - at(b)) : first));
    };
    const name = ORDER + box.dataset.id;
    try { if (localStorage.getItem(name)) arrange(localStorage.getItem(name)); } catch { /* not kept */ }
    follow(name, (words) => { arrange(words); clear(); });
    for (const card of cards()) {
      const text = words(card);
      const grip = make("button", { type: "button", class: "cp-grip", "aria-label": `Move: ${text} Use the arrow keys, or drag.` }, "⠿");
      const up = make("button", { type: "button", class: "cp-up", "aria-label": `Up: ${text}` }, "▲");
      const down = make("button", { type: "button", class: "cp-down", "aria-label": `Down: ${text}` }, "▼");
      card.prepend(grip);
      card.append(make("span", { class: "cp-mark", "aria-hidden": "true" }), up, down);
      const by = (button, step) => { move(card, cards().indexOf(card) + step); button.focus(); };
      up.addEventListener("click", () => by(up, -1));
      down.addEventListener("click", () => by(down, 1));
      grip.addEventListener("keydown", (event) => {
        const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
        if (!step) return;
        event.preventDefault();
        by(grip, step);
      });
      grip.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        grip.focus();
        grip.setPointerCapture(event.pointerId);
        card.classList.add("cp-held");
        const drag = (e) => {
          const edge = 70; // near an edge the page moves, so that a card can go further than the screen
          if (e.clientY < edge) scrollBy(0, -16);
          else if (e.clientY > innerHeight - edge) scrollBy(0, 16);
          const over = cards().findIndex((other) => e.clientY < other.getBoundingClientRect().bottom);
          const to = over < 0 ? cards().length - 1 : over;
          if (to !== cards().indexOf(card)) { move(card, to); grip.setPointerCapture(event.pointerId); }
        };
        const drop = () => {
          card.classList.remove("cp-held");
          grip.removeEventListener("pointermove", drag);
        };
        grip.addEventListener("pointermove", drag);
        for (const end of ["pointerup", "pointercancel"]) grip.addEventListener(end, drop, { once: true });
      });
    }
    const bar = make("p", { class: "cp-bar" }), go = make("button", { type: "button", class: "cp-play" }, "Play this order");
    go.addEventListener("click", play);
    bar.append(go);
    list.after(bar);
    box.classList.add("cp-live");
  };

  // --- sliders of saved widgets: their handles come without a name --------------------------------------
  const nameSliders = () => {
    for (const slider of all(".widget-slider, .widget-hslider")) {
      const label = slider.querySelector(".widget-label")?.textContent?.trim();
      if (label) all(".noUi-handle", slider).forEach((handle) => handle.setAttribute("aria-label", label));
    }
  };

  const start = () => {
    all(".cp-choice").forEach(choice);
    all(".cp-predict").forEach(predict);
    all(".cp-recall").forEach(recall);
    all(".cp-recall").forEach(cover);
    all(".cp-order").forEach(order);
    if (document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) {
      new MutationObserver(nameSliders).observe(document.body, { childList: true, subtree: true });
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
