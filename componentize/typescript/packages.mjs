// Installs the npm packages of a filter: `npm ci` in its folder, for package.json and its lock.
//
// The lock decides which versions are installed, and scripts of packages are not run. A folder that
// another package manager filled is used as it is.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { AuthorError } from "./common.mjs";

const KINDS = ["dependencies", "devDependencies", "optionalDependencies"];
const LOCKS = ["package-lock.json", "npm-shrinkwrap.json"];

/** Installs what the lock names, unless it is installed. */
export function installPackages(source, step) {
  const manifest = readJson(join(source, "package.json"));
  if (!KINDS.some((kind) => Object.keys(manifest?.[kind] ?? {}).length > 0)) return;
  const lockFile = LOCKS.find((name) => existsSync(join(source, name)));
  if (lockFile === undefined) {
    if (existsSync(join(source, "node_modules"))) return;
    const advice = "run `npm install` in the filter's folder, and keep the lock";
    throw new AuthorError(`package.json: it names packages, but there is no package-lock.json: ${advice}`);
  }
  const lock = readJson(join(source, lockFile));
  const installed = readJson(join(source, "node_modules/.package-lock.json"));
  if (installed !== undefined && isInstalled(lock, installed)) return;
  step("npm ci");
  const flags = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const npm = spawnSync("npm", flags, { cwd: source, encoding: "utf8" });
  if (npm.error) throw new AuthorError(`npm cannot be run: ${npm.error.message}: install Node.js with npm`);
  if (npm.status === 0) return;
  // The rest is the help of `npm ci` and the name of a log.
  const text = `${npm.stdout}${npm.stderr}`.split(/^npm error (?:Clean install a project|A complete log)/m)[0].trim();
  throw new AuthorError(`${lockFile}: \`npm ci --ignore-scripts\` failed:\n${text}`);
}

function readJson(file) {
  if (!existsSync(file)) return undefined;
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new AuthorError(`${file}: this is not valid JSON: ${error.message}`);
  }
}

/** Whether npm's record of node_modules has all packages of the lock, in the locked versions. */
function isInstalled(lock, installed) {
  const wanted = Object.entries(lock?.packages ?? {}).filter(([path]) => path !== "");
  return wanted.every(([path, { version, integrity, optional }]) => {
    const found = installed.packages?.[path];
    if (found === undefined) return optional === true;
    return found.version === version && found.integrity === integrity;
  });
}
