// Makes what the pages load: one style sheet, two scripts, one icon sprite and the fonts, named by their content and compressed
// beforehand, with manifest.json saying which name is which. Reads templates only to leave out styles that nothing uses.
// Invariant: nothing that it writes names another host.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build, transform } from "esbuild";
import { PurgeCSS } from "purgecss";

const here = dirname(fileURLToPath(import.meta.url));
const console_ = resolve(here, "../src/postbud/console");
const out = join(console_, "ui/static/ui");
const manifest = {};
const fonts = {
  "inter.woff2": "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2",
  "inter-ext.woff2": "@fontsource-variable/inter/files/inter-latin-ext-wght-normal.woff2",
  "mono.woff2": "@fontsource/ibm-plex-mono/files/ibm-plex-mono-latin-400-normal.woff2",
};

function files(folder, suffixes) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === "static" || entry.name === "__pycache__" ? [] : files(path, suffixes);
    return suffixes.includes(extname(entry.name)) ? [path] : [];
  });
}

// Writes a file under a name that changes with its content, and its compressed forms beside it where that helps.
function emit(name, content) {
  const bytes = Buffer.from(content);
  const digest = createHash("sha256").update(bytes).digest("hex").slice(0, 12);
  const extension = extname(name);
  const named = `${basename(name, extension)}.${digest}${extension}`;
  writeFileSync(join(out, named), bytes);
  if (extension !== ".woff2") {
    writeFileSync(join(out, `${named}.gz`), gzipSync(bytes, { level: 9 }));
    writeFileSync(join(out, `${named}.br`), brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }));
  }
  manifest[name] = named;
  return named;
}

function sprite() {
  const names = readFileSync(join(here, "src/icons.txt"), "utf8").split(/\s+/).filter(Boolean);
  const symbols = names.map((name) => {
    const own = join(here, "src/icons", `${name}.svg`);
    const theirs = join(here, "node_modules/@tabler/icons/icons/outline", `${name}.svg`);
    const svg = readFileSync(statSync(own, { throwIfNoEntry: false }) ? own : theirs, "utf8");
    const shapes = svg.replace(/^[\s\S]*?<svg[^>]*>/, "").replace(/<\/svg>[\s\S]*$/, "").replace(/<path stroke="none" d="M0 0h24v24H0z" fill="none"\s*\/>/, "");
    return `<symbol id="${name}" viewBox="0 0 24 24">${shapes.replace(/\s*\n\s*/g, "")}</symbol>`;
  });
  emit("icons.svg", `<svg xmlns="http://www.w3.org/2000/svg">${symbols.join("")}</svg>`);
}

async function bundle(entry) {
  const made = await build({ entryPoints: [entry], bundle: true, write: false, outdir: out, external: ["*.woff2"], logLevel: "warning" });
  return made.outputFiles[0].text;
}

// Of Tabler's styles only what a template names; our own stay whole, so that a page may use any of them without a new build.
async function styles() {
  const theirs = await new PurgeCSS().purge({
    content: [...files(console_, [".html", ".py"]), ...files(join(here, "src"), [".js"]), join(here, "src/tabler-classes.txt")],
    css: [{ raw: await bundle(join(here, "node_modules/@tabler/core/dist/css/tabler.css")) }],
    defaultExtractor: (text) => text.match(/[A-Za-z0-9_-]+/g) ?? [],
    keyframes: true,
  });
  let css = theirs[0].css + (await bundle(join(here, "src/console.css")));
  for (const [name, font] of Object.entries(fonts)) {
    css = css.replaceAll(`./${name}`, `./${emit(name, readFileSync(join(here, "node_modules", font)))}`);
  }
  const small = await transform(css, { loader: "css", minify: true, legalComments: "none" });
  emit("console.css", small.code);
}

async function scripts() {
  for (const name of ["console.js", "charts.js"]) {
    const made = await build({
      entryPoints: [join(here, "src", name)], bundle: true, minify: true, write: false, format: "iife", target: "es2022", legalComments: "none",
    });
    emit(name, made.outputFiles[0].text);
  }
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
sprite();
await styles();
await scripts();
emit("mark.svg", readFileSync(join(here, "src/mark.svg")));
writeFileSync(join(out, "manifest.json"), JSON.stringify(manifest, null, 1));
