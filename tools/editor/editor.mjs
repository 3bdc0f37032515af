// The editor of the book's code exercises: CodeMirror 6 with Python. `make vendor` bundles it.
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState, RangeSetBuilder } from "@codemirror/state";
import { Decoration, drawSelection, EditorView, keymap, lineNumbers, ViewPlugin } from "@codemirror/view";
import { tags } from "@lezer/highlight";

// Colours are the page's variables (live.css), so that they follow its light and dark modes.
const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.controlKeyword, tags.definitionKeyword], color: "var(--cp-keyword)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--cp-string)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--cp-number)" },
  { tag: [tags.comment], color: "var(--cp-comment)", fontStyle: "italic" },
  { tag: [tags.function(tags.definition(tags.variableName)), tags.definition(tags.className)], color: "var(--cp-name)" },
]);

const look = EditorView.theme({
  "&": { fontSize: "0.9rem", color: "inherit", backgroundColor: "transparent" },
  ".cm-content": { fontFamily: "var(--pst-font-family-monospace, monospace)", caretColor: "currentColor", minHeight: "6em" },
  ".cm-gutters": { backgroundColor: "transparent", color: "inherit", opacity: "0.75", border: "none" },
  ".cm-cursor": { borderLeftColor: "currentColor" },
  "&.cm-focused": { outline: "none" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--cp-selected)",
  },
});

// A line that is too long for a phone goes on under its own indentation: Python is read by where a line begins.
const AFTER = 2, DEEPEST = 12; // letters: how much further it goes on, and where room would run out
const hung = (view) => {
  const marks = new RangeSetBuilder();
  let next = 0; // a very long line may be shown in several pieces
  for (const { from, to } of view.visibleRanges) {
    for (let at = Math.max(from, next); at <= to; at = next) {
      const line = view.state.doc.lineAt(at), deep = Math.min(line.text.search(/\S|$/) + AFTER, DEEPEST);
      const style = `text-indent: -${deep}ch; padding-inline-start: calc(${deep}ch + 6px)`;
      if (line.from >= next) marks.add(line.from, line.from, Decoration.line({ attributes: { style } }));
      next = line.to + 1;
    }
  }
  return marks.finish();
};
const hanging = ViewPlugin.fromClass(
  class {
    constructor(view) { this.decorations = hung(view); }
    update({ docChanged, viewportChanged, view }) { if (docChanged || viewportChanged) this.decorations = hung(view); }
  },
  { decorations: (plugin) => plugin.decorations },
);

/** An editor in `parent`: its text is `text()`, `set(text)` replaces it, `changed` is called after each change. */
export function editor(parent, { text, label, changed, run, at = 0 }) {
  const runs = keymap.of([{ key: "Mod-Enter", run: () => (run(), true) }]);
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: text,
      selection: { anchor: Math.min(at, text.length) },
      extensions: [
        runs,
        lineNumbers(),
        history(),
        drawSelection(),
        indentOnInput(),
        bracketMatching(),
        indentUnit.of("    "),
        python(),
        syntaxHighlighting(colours),
        look,
        EditorView.lineWrapping,
        hanging,
        // Escape, then Tab, leaves the editor: CodeMirror's own rule. Tab alone indents.
        keymap.of([...defaultKeymap, ...historyKeymap, indentWithTab]),
        EditorView.contentAttributes.of({ "aria-label": label, autocapitalize: "off", autocorrect: "off", spellcheck: "false" }),
        EditorView.updateListener.of((update) => update.docChanged && changed(update.state.doc.toString())),
      ],
    }),
  });
  return {
    text: () => view.state.doc.toString(),
    set: (words) => view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: words } }),
    focus: () => view.focus(),
  };
}
