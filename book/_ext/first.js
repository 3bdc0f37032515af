/* In each page's head, before anything is drawn: storage that does not throw, and which colours the page has.
   The theme settles the colours when the whole page has been read, and each element is then styled a second time.
   From a folder that price is paid by readers who chose other colours than their system has: see below. */
(() => {
  const root = document.documentElement.dataset;
  const dark = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const settle = () => {
    // Where a browser refuses storage (a private window, cookies blocked), a page gets one that lasts as long as the page.
    for (const name of ["localStorage", "sessionStorage"]) {
      try { window[name].getItem("mode"); } catch {
        const held = new Map();
        const value = {
          fleeting: true, // the forms say what that means for an answer
          getItem: (key) => held.get(key) ?? null,
          setItem: (key, text) => { held.set(key, String(text)); },
          removeItem: (key) => { held.delete(key); },
        };
        try { Object.defineProperty(window, name, { value, configurable: true }); } catch { /* then without */ }
      }
    }
    let mode;
    try { mode = localStorage.getItem("mode"); } catch { /* as at a first visit */ }
    root.mode = ["light", "dark"].includes(mode) ? mode : "auto";
    root.theme = root.mode !== "auto" ? root.mode : dark();
  };
  if (location.protocol !== "file:") { settle(); return; }
  // From a folder Chromium gives a page that asks at once, now and then, an empty storage that nothing else sees: what
  // is answered there is lost, and so is what was kept. Asked when the page has been read, none of 250 visits lost it.
  root.mode = "auto";
  root.theme = dark();
  document.addEventListener("readystatechange", settle, { once: true });
})();
