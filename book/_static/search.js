/* Search over sections: whole words first, then words that begin so, then words that are one slip away. */
"use strict";
(() => {
  const rows = window.courseSections || [];
  const words = (text) => text.toLowerCase().normalize("NFKD").match(/[\p{L}\p{N}_]+(?:[.'’-][\p{L}\p{N}_]+)*/gu) || [];
  // max_num_batched_tokens is one word and four: both find it.
  const parts = (word) => (/[_.-]/.test(word) ? [word, ...word.split(/[_.'’-]+/).filter(Boolean)] : [word]);
  const stem = (word) => word.replace(/(?<=\w{3})(?:ies|es|s)$/, (end) => (end === "ies" ? "y" : end === "es" ? "e" : ""));
  const counted = (text) => {
    const found = new Map();
    for (const word of words(text)) for (const part of parts(word)) {
      const key = stem(part);
      found.set(key, (found.get(key) || 0) + 1);
    }
    return found;
  };
  const index = [], spread = new Map(); // in how many sections a word stands
  let vocabulary = [];
  const add = ([page, id, title, head, text]) => {
    const row = { page, id, title, head, text, heads: counted(head), body: counted(text) };
    index.push(row);
    for (const word of new Set([...row.heads.keys(), ...row.body.keys()])) spread.set(word, (spread.get(word) || 0) + 1);
  };
  // A phone takes a second for all sections: they are read a little at a time, so that it goes on drawing and typing.
  const SLICE_MS = 12;
  const read = (async () => {
    for (let n = 0; n < rows.length;) {
      const until = performance.now() + SLICE_MS;
      while (n < rows.length && performance.now() < until) add(rows[n++]);
      await new Promise((go) => setTimeout(go));
    }
    vocabulary = [...spread.keys()];
  })();
  const rare = (word) => Math.log(1 + index.length / (spread.get(word) || 1));

  /** Whether two words are at most `most` slips apart: a letter too many, too few, wrong, or two swapped. */
  const near = (a, b, most) => {
    if (Math.abs(a.length - b.length) > most) return false;
    let before = [], last = Array.from({ length: b.length + 1 }, (_, j) => j);
    for (let i = 1; i <= a.length; i++) {
      const row = [i];
      for (let j = 1; j <= b.length; j++) {
        row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
        if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) row[j] = Math.min(row[j], before[j - 2] + 1);
      }
      if (Math.min(...row) > most) return false;
      [before, last] = [last, row];
    }
    return last[b.length] <= most;
  };

  /** What a word of the query may mean: [word of the book, how sure]. */
  const meant = new Map();
  const meanings = (word) => {
    if (!meant.has(word)) meant.set(word, looked(word));
    return meant.get(word);
  };
  const looked = (word) => {
    const key = stem(word);
    if (spread.has(key)) return [[key, 1], ...(key.length > 3 ? vocabulary.filter((w) => w !== key && w.startsWith(key)).slice(0, 12).map((w) => [w, 0.4]) : [])];
    const begins = key.length > 3 ? vocabulary.filter((w) => w.startsWith(key)) : [];
    if (begins.length) return begins.slice(0, 20).map((w) => [w, 0.6]);
    const most = key.length > 8 ? 2 : key.length > 3 ? 1 : 0;
    return most ? vocabulary.filter((w) => near(key, w, most)).slice(0, 12).map((w) => [w, 0.5]) : [];
  };

  const MOST = 24, LONGEST = 60; // words of a query, letters of a word: what is pasted may be a book
  const COMMON = new Set("a an the of to in is it and or for on by with what how why when does do be are that this at from i my".split(" "));
  const search = (query) => {
    const typed = words(query.slice(0, 4000)).filter((word) => word.length <= LONGEST).slice(0, MOST), asked = typed.filter((word) => !COMMON.has(word));
    const wanted = (asked.length ? asked : typed).map((word) => [word, meanings(word)]);
    const phrase = query.toLowerCase().trim();
    const found = [];
    for (const row of index) {
      let score = 0, met = 0;
      const marks = new Set();
      for (const [, all] of wanted) {
        let best = 0;
        for (const [word, sure] of all) {
          const n = row.body.get(word) || 0, heads = row.heads.get(word) || 0;
          if (!n && !heads) continue;
          marks.add(word);
          const long = Math.sqrt(200 + row.text.length) / 30;
          best = Math.max(best, sure * rare(word) * (heads * 3 + (n * 2.2) / (n + long)));
        }
        if (best) met += 1;
        score += best;
      }
      if (!met) continue;
      score *= (met / wanted.length) ** 2;
      if (phrase.length > 5 && `${row.head} ${row.text}`.toLowerCase().includes(phrase)) score *= 1.6;
      if (/api(\/\w+)?\.html$|claims\.html$|measurements\.html$/.test(row.page)) score *= 0.6; // lists, where chapters explain
      found.push({ row, score, marks });
    }
    return found.sort((a, b) => b.score - a.score).slice(0, 30);
  };
  window.courseSearch = async (query) => (await read, search(query)).map(({ row }) => [row.page, row.id, row.head]);

  const make = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text) node.textContent = text;
    return node;
  };
  const excerpt = ({ text }, marks) => {
    const hit = (word) => parts(word.toLowerCase()).some((part) => marks.has(stem(part)));
    const tokens = text.split(/(\s+)/), at = tokens.findIndex((token) => words(token).some(hit));
    const from = Math.max(0, at - 24), shown = tokens.slice(from, from + 64);
    const line = make("p");
    if (from > 0) line.append("… ");
    for (const token of shown) line.append(words(token).some(hit) ? make("mark", {}, token) : token);
    if (from + 64 < tokens.length) line.append(" …");
    return line;
  };
  const start = () => {
    const field = document.getElementById("cp-query"), list = document.getElementById("cp-found"), count = document.getElementById("cp-count");
    if (!field) return;
    let coming = 0;
    const show = async () => {
      const query = field.value.trim(), mine = (coming += 1);
      if (query && !vocabulary.length) count.textContent = "Reading the book's sections.";
      await read;
      if (mine !== coming) return; // something else has been typed meanwhile
      if (!rows.length) { // an index that did not load finds nothing, which is not the same as a book that says nothing
        count.textContent = "Nothing can be searched: sections.js could not be fetched. Check the connection and load the page again.";
        return;
      }
      const found = query ? search(query) : [];
      list.replaceChildren(...found.map(({ row, marks }) => {
        const item = make("li");
        item.append(make("a", { href: `${row.page}${row.id ? `#${row.id}` : ""}` }, row.head || row.title));
        if (row.title !== row.head) item.append(make("span", { class: "cp-where" }, row.title));
        item.append(excerpt(row, marks));
        return item;
      }));
      count.textContent = query ? (found.length ? `${found.length === 30 ? "The first 30" : found.length} section${found.length === 1 ? "" : "s"}` : `Nothing found for “${query.length > 80 ? `${query.slice(0, 80)}…` : query}”.`) : "";
    };
    field.value = new URLSearchParams(location.search).get("q") || "";
    field.addEventListener("input", show);
    field.form.addEventListener("submit", (event) => { event.preventDefault(); history.replaceState(null, "", `?q=${encodeURIComponent(field.value)}`); show(); });
    show();
    field.focus();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
