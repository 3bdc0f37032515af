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

  const recall = (box) => {
    const id = box.dataset.recall, mine = kept(id), line = box.querySelector(".cp-mine");
    for (const row of all("li[data-key]", box)) row.classList.toggle("cp-yours", row.dataset.key === mine);
    const row = all("li[data-key]", box).find((item) => item.dataset.key === mine);
    line.removeAttribute("role"); // spoken when it changes, by `say`, not when the page loads
    line.textContent = "";
    if (row) {
      line.append(make("strong", {}, "You predicted: "), row.querySelector(".cp-text").textContent);
      line.append(" ", row.hasAttribute("data-right") ? "That is what was measured." : "That is not what was measured.");
    } else {
      line.append("You have made no prediction yet. ", make("a", { href: `#cp-${id}` }, "The question is further up."));
    }
  };

  const predict = (box) => {
    const id = box.dataset.id, mine = kept(id);
    const told = (input) => {
      const note = input.parentElement.querySelector(".cp-why");
      note.textContent = keep(id, input.value)
        ? "Kept in this browser. You will see it again, beside the measured answer."
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
  };

  // --- choices: the reply is shown by CSS; here it is spoken --------------------------------------------
  const choice = (box) => {
    for (const input of all("input[type=radio]", box)) {
      input.addEventListener("change", () => say(input.parentElement.querySelector(".cp-why").textContent));
    }
  };

  // --- orders: cards that are moved by button, key or drag, and played from a table of states -----------
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
    all(".cp-order").forEach(order);
    if (document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) {
      new MutationObserver(nameSliders).observe(document.body, { childList: true, subtree: true });
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
