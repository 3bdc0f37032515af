/* Python, in a worker without a network: its files come by message, its words go by message. */
let python;
const decoded = (buffer) => new TextDecoder().decode(buffer);

const module = (part) => import(URL.createObjectURL(new Blob([part], { type: "text/javascript" })));

const boot = async ({ files }) => {
  const { loadPyodide } = await module(files["pyodide.mjs"]);
  const { default: createPyodideModule } = await module(files["pyodide.asm.mjs"]);
  const types = { wasm: "application/wasm", zip: "application/zip", json: "application/json" };
  self.fetch = async (address) => {
    const name = String(address).split("/").pop();
    if (!(name in files)) throw new TypeError(`${name} is not among the files of this page`);
    return new Response(files[name], { headers: { "Content-Type": types[name.split(".").pop()] ?? "text/plain" } });
  };
  python = await loadPyodide({
    indexURL: "https://page.invalid/",
    stdLibURL: "https://page.invalid/python_stdlib.zip",
    lockFileContents: JSON.parse(decoded(files["pyodide-lock.json"])),
    createPyodideModule,
  });
  python.unpackArchive(new Uint8Array(files["packages.zip"]), "zip");
  python.runPython("from chunkprefill_course.live.answer import answer");
  for (const name of ["Worker", "SharedWorker", "BroadcastChannel", "indexedDB", "caches"]) delete self[name]; // what no program here needs
};

self.onmessage = async ({ data }) => {
  try {
    if (data.files) {
      await boot(data);
      self.postMessage({ ready: true });
    } else {
      const tell = (words) => self.postMessage({ number: data.number, progress: String(words) });
      const reply = python.globals.get("answer")(JSON.stringify(data.question), tell);
      self.postMessage({ number: data.number, reply: JSON.parse(reply) });
    }
  } catch (error) {
    // The interpreter's own stack has run out, as it does on 20,000 brackets in brackets: it cannot go on.
    const words = error instanceof RangeError ? "Python ran out of stack: something is nested, or calls itself, too deeply. It starts anew with the next Run." : String(error?.message ?? error);
    self.postMessage({ number: data.number, failed: words.slice(0, 2000) });
  }
};
