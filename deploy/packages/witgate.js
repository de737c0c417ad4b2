#!/usr/bin/env node
// Runs the binary of this platform, which npm installs as an optional dependency.
"use strict";
const { spawn } = require("node:child_process");

const platform = `${process.platform}-${process.arch}`;
let binary;
try {
  binary = require.resolve(`@witgate/${platform}/bin/witgate`);
} catch {
  console.error(`witgate: there is no binary for ${platform}. It runs on x86-64 Linux with glibc 2.36 or newer.`);
  console.error("If this is such a system, npm left it out: install without --omit=optional.");
  process.exit(1);
}
const child = spawn(binary, process.argv.slice(2), { stdio: "inherit" });
// A service manager signals this process: the gateway drains and ends when it gets the signal.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"]) process.on(signal, () => child.kill(signal));
child.on("error", (error) => {
  console.error(`witgate: cannot run ${binary}: ${error.message}`);
  process.exit(1);
});
child.on("exit", (status, signal) => {
  if (!signal) process.exit(status ?? 1);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
});
