/* For who reads: a drawer that closes, where one is and where one stopped, folds that print, previews of words and
   sources, explorers that speak, answers that can be cleared. Without it every page can still be read. */
"use strict";
(() => {
  const BASE = new URL(".", document.currentScript.src);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text) node.textContent = text;
    return node;
  };
  const OURS = "chunkprefill:";
  const kept = (key) => { try { return localStorage.getItem(OURS + key); } catch { return null; } };
  const remembered = (key) => { try { return JSON.parse(kept(key) || "null"); } catch { return null; } }; // others may share the origin
  const keep = (key, value) => { try { localStorage.setItem(OURS + key, value); return true; } catch { return false; } };

  // --- the phone's drawers: one taps an entry, or ✕, or goes back, and they are gone ------------------------
  const drawers = () => {
    for (const dialog of all("dialog[id$='sidebar-modal']")) {
      dialog.addEventListener("click", (event) => { if (event.target.closest("a[href]")) dialog.close(); });
      const close = make("button", { type: "button", class: "cp-close", "aria-label": "Close" }, "✕");
      close.addEventListener("click", () => dialog.close());
      const dress = () => { if (dialog.open && !dialog.querySelector(".cp-close")) dialog.prepend(close); };
      new MutationObserver(dress).observe(dialog, { attributes: true, attributeFilter: ["open"] });
    }
    const shut = () => all("dialog[open]").forEach((dialog) => dialog.close());
    addEventListener("popstate", shut);
    addEventListener("hashchange", shut);
    addEventListener("pageshow", (event) => { if (event.persisted) shut(); });
  };

  // --- a frame or a picture behind a fold is read when it is asked for: until then it is the text of a noscript -------
  const read = (place) => {
    for (const held of all(":scope > noscript", place)) held.outerHTML = held.textContent;
  };
  const folded = () => {
    const open = (fold) => all("noscript", fold).forEach((held) => { if (!held.closest(".cp-frames")) read(held.parentElement); });
    addEventListener("click", ({ target }) => { const fold = target.closest?.("summary")?.parentElement; if (fold) open(fold); }, true);
    addEventListener("toggle", ({ target }) => { if (target.open) open(target); }, true); // opened by a search, a script
    addEventListener("beforeprint", () => all(".bd-article details").forEach(open));
  };

  // --- print: every fold open, on a light page -----------------------------------------------------------------
  const printing = () => {
    let shut = [], theme;
    const open = () => {
      shut = all("details:not([open])");
      shut.forEach((fold) => (fold.open = true));
      theme = document.documentElement.dataset.theme;
      document.documentElement.dataset.theme = "light";
    };
    const back = () => {
      shut.forEach((fold) => (fold.open = false));
      if (theme) document.documentElement.dataset.theme = theme;
    };
    addEventListener("beforeprint", open);
    addEventListener("afterprint", back);
  };

  // --- what scrolls sideways can be reached by the keyboard -----------------------------------------------------
  // The theme measured every box of a page at load and after each change, reading and writing in turn: half a second
  // on a phone. Here a box is measured when it comes near the screen, and all of a batch before any is changed.
  const tabStops = () => {
    const boxes = all("pre, .cell_output > .output, .jp-RenderedHTMLCommon, .pst-scrollable-table-container, .cp-table");
    const seen = new IntersectionObserver((entries) => {
      const near = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
      const scroll = near.map((box) => box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight);
      near.forEach((box, i) => { box.tabIndex = scroll[i] ? 0 : -1; seen.unobserve(box); });
    }, { rootMargin: "900px 0px" });
    const watch = () => boxes.forEach((box) => seen.observe(box));
    let soon;
    addEventListener("resize", () => { clearTimeout(soon); soon = setTimeout(watch, 300); });
    watch();
  };

  // --- code can be copied: a block's button is made when the block comes near the screen ------------------------------
  // What a cell printed, a signature and what a reader types are not offered.
  const copied = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* from a folder there is an older way */ }
    const area = make("textarea", { "aria-hidden": "true", class: "cp-voice" });
    area.value = text;
    document.body.append(area);
    area.select();
    try { return document.execCommand("copy"); } finally { area.remove(); }
  };
  const copying = () => {
    const blocks = all(".bd-article .highlight > pre").filter((pre) => !pre.closest(".cell_output, .cp-signature, .cp-el"));
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target: pre } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(pre);
        const button = make("button", { type: "button", class: "cp-copy", "aria-label": "Copy this code" });
        const said = make("span", { class: "cp-voice", role: "status" });
        button.addEventListener("click", async () => {
          const done = await copied(pre.textContent);
          button.classList.toggle("cp-copied", done);
          said.textContent = done ? "Copied." : "The browser does not allow copying: select the code.";
          setTimeout(() => { button.classList.remove("cp-copied"); said.textContent = ""; }, 2000);
        });
        pre.after(button, said);
      }
    }, { rootMargin: "900px 0px" });
    blocks.forEach((pre) => seen.observe(pre));
  };

  // --- where one is in a chapter, and where one stopped ----------------------------------------------------------
  const progress = () => {
    const article = document.querySelector(".bd-article"), heads = all(".bd-article h2");
    if (!article || heads.length < 4) return;
    const place = location.pathname.split("/").pop();
    const bar = make("div", { class: "cp-progress", "aria-hidden": "true" });
    const fill = make("span", { class: "cp-progress-fill" }), name = make("span", { class: "cp-progress-name" });
    bar.append(fill, name);
    document.body.append(bar);
    const title = (head) => head.firstChild?.textContent?.trim() || head.textContent.trim();
    const stopped = remembered(`place:${place}`);
    let told = 0;
    const update = () => {
      told = 0;
      const { top, height } = article.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (innerHeight * 0.4 - top) / height));
      fill.style.transform = `scaleX(${share.toFixed(4)})`;
      const here = heads.filter((head) => head.parentElement.getBoundingClientRect().top < innerHeight * 0.4).pop();
      const words = here ? title(here) : "";
      if (name.textContent !== words) {
        name.textContent = words;
        if (here) keep(`place:${place}`, JSON.stringify({ id: here.parentElement.id, title: words }));
      }
    };
    addEventListener("scroll", () => { told ||= requestAnimationFrame(update); }, { passive: true });
    if (typeof stopped?.id === "string" && typeof stopped.title === "string" && !location.hash && document.getElementById(stopped.id) && stopped.id !== heads[0].parentElement.id) {
      const again = make("p", { class: "cp-resume" });
      again.append("You stopped at ", make("a", { href: `#${stopped.id}` }, stopped.title), ".");
      document.querySelector(".bd-article h1")?.after(again);
    }
  };

  // --- a page that is loaded again, or gone back to, opens where one was ---------------------------------------------
  // A browser remembers a height, and the pictures above are only guessed at until they have been drawn (course.css).
  const sameplace = () => {
    const key = `where:${location.pathname}`, parts = all(".bd-article > section > section");
    const top = (part) => part.getBoundingClientRect().top;
    addEventListener("pagehide", () => {
      const here = parts.filter((part) => top(part) <= 0).pop();
      try { sessionStorage.setItem(key, here ? JSON.stringify([here.id, top(here)]) : ""); } catch { /* not kept */ }
    });
    if (!["reload", "back_forward"].includes(performance.getEntriesByType("navigation")[0]?.type)) return;
    try {
      const [id, was] = JSON.parse(sessionStorage.getItem(key));
      const here = parts.find((part) => part.id === id);
      history.scrollRestoration = "manual";
      scrollBy(0, top(here) - was);
    } catch { /* then where the browser says */ }
  };

  // --- previews of glossary words and sources, on hover and on focus ----------------------------------------------
  let texts;
  const previews = () => {
    const links = all(".bd-article a[href*='glossary.html#'], .bd-article a[href*='bibliography.html#']");
    if (!links.length) return;
    const card = make("div", { class: "cp-preview", role: "tooltip", id: "cp-preview" });
    card.hidden = true;
    document.body.append(card);
    const fetched = () => (texts ??= new Promise((go) => {
      const script = make("script", { src: new URL("previews.js", BASE) });
      script.onload = () => go(window.coursePreviews || {});
      script.onerror = () => { texts = undefined; go({}); }; // offline: the next word asks again
      document.head.append(script);
    }));
    let over;
    const show = async (link) => {
      over = link;
      const found = (await fetched())[link.getAttribute("href").split("/").pop()];
      if (!found || over !== link) return;
      card.textContent = found;
      card.hidden = false;
      const { left, bottom, top } = link.getBoundingClientRect();
      const { width, height } = card.getBoundingClientRect();
      card.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8)) + scrollX}px`;
      card.style.top = `${(bottom + height + 8 < innerHeight ? bottom + 4 : top - height - 4) + scrollY}px`;
      link.setAttribute("aria-describedby", "cp-preview");
    };
    const hide = () => { card.hidden = true; over?.removeAttribute("aria-describedby"); over = undefined; };
    for (const link of links) {
      link.addEventListener("mouseenter", () => show(link));
      link.addEventListener("focus", () => show(link));
      link.addEventListener("mouseleave", hide);
      link.addEventListener("blur", hide);
    }
    addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  };

  // --- explorers: a frame is read when it is asked for, and what a move changed is said ------------------------------
  const explorers = () => {
    const voice = make("div", { class: "cp-voice", role: "status" });
    let there = false;
    const shown = (box) => {
      const chosen = all(".cp-pills", box).map((set) => all("input[type=radio]", set).findIndex((one) => one.checked));
      all(`.cp-frame-${chosen.join("-")}`, box).forEach(read);
    };
    if (!CSS.supports("selector(:has(a))")) all(".cp-frame").forEach(read); // then each of them shows
    addEventListener("pageshow", () => all(".cp-explorer").forEach(shown)); // a browser may remember what was chosen
    for (const box of all(".cp-explorer")) {
      box.addEventListener("change", () => shown(box));
      if (!there) { document.body.append(voice); there = true; }
      box.addEventListener("change", ({ target }) => setTimeout(() => {
        if (target.type !== "radio") return; // a number is drawn, and said, when it is asked for
        const frame = all("svg[aria-label]", box).find((svg) => svg.getClientRects().length);
        if (frame) voice.textContent = frame.getAttribute("aria-label");
      }, 60));
    }
  };

  // --- choices are kept; all that is kept can be cleared ------------------------------------------------------------
  const answers = () => {
    for (const box of all(".cp-choice")) {
      const id = box.dataset.id, mine = kept(`answer:${id}`);
      for (const input of all("input[type=radio]", box)) {
        if (input.value === mine) input.checked = true;
        input.addEventListener("change", () => keep(`answer:${id}`, input.value));
      }
    }
    const show = (id, value) => { // what was chosen where the same page is open a second time
      for (const box of all(".cp-choice")) {
        if (box.dataset.id === id) all("input[type=radio]", box).forEach((input) => (input.checked = input.value === value));
      }
    };
    const ANSWER = `${OURS}answer:`;
    addEventListener("storage", ({ key, newValue }) => { if (key?.startsWith(ANSWER)) show(key.slice(ANSWER.length), newValue); });
    addEventListener("pageshow", ({ persisted }) => {
      if (persisted) all(".cp-choice").forEach((box) => { if (kept(`answer:${box.dataset.id}`)) show(box.dataset.id, kept(`answer:${box.dataset.id}`)); });
    });
    const foot = document.querySelector(".bd-article");
    if (!foot || !document.querySelector(".cp-el")) return;
    const line = make("p", { class: "cp-clear-line" });
    const clear = make("button", { type: "button", class: "cp-clear" }, "Clear my answers");
    const said = make("span", { role: "status" });
    clear.addEventListener("click", () => {
      try {
        for (const held of [localStorage, sessionStorage]) {
          Object.keys(held).filter((key) => key.startsWith(OURS)).forEach((key) => held.removeItem(key));
        }
        dispatchEvent(new Event("cp-cleared")); // whatever else would be kept when the page is left
        said.textContent = " Cleared: predictions, choices, orders, code and the place where you stopped.";
        setTimeout(() => location.reload(), 900);
      } catch { said.textContent = " This browser keeps nothing."; }
    });
    line.append(clear, said);
    foot.append(line);
  };

  // --- the header's menus: their script comes when a finger, a pointer or the keyboard first comes to one ------------
  const menus = () => {
    const top = document.getElementById("pst-back-to-top"); // the script would show it too, to who scrolls up
    let before = 0;
    if (top) {
      top.addEventListener("click", () => scrollTo(0, 0));
      addEventListener("scroll", () => { top.style.display = scrollY < before && scrollY > 60 ? "block" : "none"; before = scrollY; }, { passive: true });
    }
    const address = document.querySelector("script[data-later]")?.dataset.later;
    if (!address) return;
    let coming;
    const fetched = () => (coming ??= new Promise((go) => {
      const script = make("script", { src: address });
      script.onload = script.onerror = go;
      document.head.append(script);
    }));
    const served = (target) => target.closest?.("[data-bs-toggle]");
    for (const type of ["pointerover", "focusin"]) addEventListener(type, ({ target }) => { if (served(target)) fetched(); });
    addEventListener("click", async (event) => {
      const menu = served(event.target);
      if (menu?.dataset.bsToggle !== "dropdown" || window.bootstrap) return;
      event.preventDefault();
      await fetched();
      if (window.bootstrap) menu.click();
    }, true);
  };

  // --- pictures far down are laid out one by one while the page rests: it then has its true height, and a screenshot
  // of all of it shows them. Where the browser does not hold the text in place meanwhile (Safari), they stay lazy.
  const pictures = async () => {
    if (!CSS.supports("overflow-anchor", "auto")) return;
    const rested = (go) => (window.requestIdleCallback ? requestIdleCallback(go, { timeout: 2000 }) : setTimeout(go, 50));
    if (document.readyState !== "complete") await new Promise((go) => addEventListener("load", go, { once: true }));
    for (const figure of all(".bd-article figure.cp-figure")) {
      await new Promise(rested);
      figure.style.contentVisibility = "visible";
    }
  };

  const start = () => [menus, drawers, folded, printing, tabStops, copying, sameplace, progress, previews, explorers, answers, pictures].forEach((part) => part());
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
