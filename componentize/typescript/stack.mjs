// Gives QuickJS a limit of recursion, which it does not have in WebAssembly.
//
// QuickJS compares the stack pointer with `rt->stack_limit` in each function that can recurse, and
// throws a RangeError below it. For WASI it is compiled with a limit of 0, so a deep recursion ends
// as a trap, which no `catch` of the author sees. Here each comparison gets STACK_LIMIT in place of
// the field.
//
// That pointer belongs to the stack in linear memory (1 MiB). The machine's stack of the gateway
// (host/runtime/src/engine.rs) is another one. Some functions, such as the parser of JSON, use only
// that one, so the comparison would never fail. They get a wrapper that takes a few bytes of the
// stack in memory for each call, so that both stacks are used at a similar rate.
//
// This file depends on the exact code of the pinned componentize-qjs. If it finds something else,
// the build fails.

/** The lowest stack pointer. What lies below is for functions that do not compare. */
const STACK_LIMIT = 64 << 10;
/** `i32.const 636  i32.add  i32.load`: loads the field `stack_limit` of the runtime. */
const LOAD_LIMIT = Buffer.from([0x41, 0xfc, 0x04, 0x6a, 0x28, 0x02, 0x00]);
/** How many functions compare. */
const COMPARING_FUNCTIONS = 36;
/** `i32.const 1000`: functions of the parser of JavaScript compare with this margin. */
const PARSER_MARGIN = Buffer.from([0x41, 0xe8, 0x07]);
/** A function with a frame of so many bytes needs no wrapper. */
const FRAME_BYTES_MIN = 64;
/** What a wrapper takes. One level of an expression uses 13 functions of the parser. */
const WRAPPER_BYTES = 48;
const PARSER_WRAPPER_BYTES = 192;

const [CORE_MODULE, NESTED_COMPONENT] = [1, 4];
const [TYPES, IMPORTS, FUNCTIONS, CODE] = [1, 2, 3, 10];

/** Returns the component with a limit of recursion. */
export function limitRecursion(component) {
  let patched = 0;
  const visit = (binary) =>
    mapSections(binary, (id, content) => {
      if (id === NESTED_COMPONENT) return visit(content);
      if (id !== CORE_MODULE || !content.includes(LOAD_LIMIT)) return content;
      patched += 1;
      return patchModule(content);
    });
  const result = visit(component);
  if (patched !== 1) throw new Error(`QuickJS was found ${patched} times in the component: adapt stack.mjs`);
  return result;
}

function patchModule(module) {
  const sections = new Map();
  mapSections(module, (id, content) => (sections.set(id, content), content));
  const imports = readImports(sections.get(IMPORTS));
  const types = readTypes(sections.get(TYPES));
  const functions = readVector(sections.get(FUNCTIONS), (reader) => reader.number());
  const bodies = readVector(sections.get(CODE), (reader) => reader.bytes(reader.number()));
  const comparing = bodies.flatMap((body, index) => (body.includes(LOAD_LIMIT) ? [index] : []));
  if (comparing.length !== COMPARING_FUNCTIONS) {
    const text = `${comparing.length} functions of QuickJS check the stack, not ${COMPARING_FUNCTIONS}`;
    throw new Error(`${text}: adapt stack.mjs`);
  }
  for (const index of comparing) {
    const body = withConstantLimit(bodies[index]);
    if (frameBytes(body, imports.stackPointer) >= FRAME_BYTES_MIN) {
      bodies[index] = body;
      continue;
    }
    const size = body.includes(PARSER_MARGIN) ? PARSER_WRAPPER_BYTES : WRAPPER_BYTES;
    const inner = imports.functions + bodies.length;
    functions.push(functions[index]);
    bodies.push(body);
    bodies[index] = wrapper(imports.stackPointer, types[functions[index]], inner, size);
  }
  return mapSections(module, (id, content) => {
    if (id === FUNCTIONS) return vector(functions.map(leb));
    if (id === CODE) return vector(bodies.map((body) => Buffer.concat([leb(body.length), body])));
    return content;
  });
}

/** Replaces each load with a constant of the same length: `drop  i32.const STACK_LIMIT  nop`. */
function withConstantLimit(body) {
  const copy = Buffer.from(body);
  const digits = [0, 7, 14, 21].map((shift) => ((STACK_LIMIT >> shift) & 0x7f) | (shift < 21 ? 0x80 : 0));
  const constant = Buffer.from([0x1a, 0x41, ...digits, 0x01]);
  for (let at = copy.indexOf(LOAD_LIMIT); at >= 0; at = copy.indexOf(LOAD_LIMIT, at)) constant.copy(copy, at);
  return copy;
}

/** The bytes of memory stack that a function takes when it begins. */
function frameBytes(body, stackPointer) {
  const reader = new Reader(body);
  for (let groups = reader.number(); groups > 0; groups--) {
    reader.number();
    reader.number();
  }
  if (reader.byte() !== 0x23 || reader.number() !== stackPointer || reader.byte() !== 0x41) return 0;
  const size = reader.number();
  return reader.byte() === 0x6b ? size : 0;
}

/** A function that takes `size` bytes of the stack while it calls `inner` with its parameters. */
function wrapper(stackPointer, parameters, inner, size) {
  const move = (operator) => [0x23, stackPointer, 0x41, ...signedLeb(size), operator, 0x24, stackPointer];
  const gets = Array.from({ length: parameters }, (_, index) => [0x20, index]).flat();
  return Buffer.from([0, ...move(0x6b), ...gets, 0x10, ...leb(inner), ...move(0x6a), 0x0b]);
}

/** The number of imported functions, and the index of the stack pointer among the globals. */
function readImports(content) {
  const found = { functions: 0, stackPointer: undefined };
  let globals = 0;
  readVector(content, (reader) => {
    reader.bytes(reader.number());
    const name = reader.bytes(reader.number()).toString();
    const kind = reader.byte();
    if (kind === 0) {
      reader.number();
      found.functions += 1;
    } else if (kind === 3) {
      reader.bytes(2);
      if (name === "__stack_pointer") found.stackPointer = globals;
      globals += 1;
    } else {
      if (kind === 1) reader.byte();
      const flags = reader.number();
      reader.number();
      if (flags & 1) reader.number();
    }
  });
  if (found.stackPointer === undefined) throw new Error("QuickJS has no stack pointer: adapt stack.mjs");
  return found;
}

/** The number of parameters of each type. */
function readTypes(content) {
  return readVector(content, (reader) => {
    reader.byte();
    const parameters = reader.number();
    reader.bytes(parameters);
    reader.bytes(reader.number());
    return parameters;
  });
}

function readVector(content, read) {
  const reader = new Reader(content);
  return Array.from({ length: reader.number() }, () => read(reader));
}

function vector(items) {
  return Buffer.concat([leb(items.length), ...items]);
}

/** A copy of a module or component, in which each section has the content that `map` returns. */
function mapSections(binary, map) {
  const reader = new Reader(binary);
  const parts = [reader.bytes(8)];
  while (!reader.isAtEnd()) {
    const id = reader.byte();
    const content = map(id, reader.bytes(reader.number()));
    parts.push(Buffer.from([id]), leb(content.length), content);
  }
  return Buffer.concat(parts);
}

class Reader {
  #buffer;
  #at = 0;
  constructor(buffer) {
    this.#buffer = Buffer.from(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }
  isAtEnd() {
    return this.#at >= this.#buffer.length;
  }
  byte() {
    return this.#buffer[this.#at++];
  }
  bytes(length) {
    this.#at += length;
    return this.#buffer.subarray(this.#at - length, this.#at);
  }
  /** An unsigned LEB128. */
  number() {
    let [value, scale, byte] = [0, 1, 0];
    do {
      byte = this.byte();
      value += (byte & 0x7f) * scale;
      scale *= 128;
    } while (byte >= 0x80);
    return value;
  }
}

function leb(value) {
  const bytes = [];
  for (; value >= 0x80; value = Math.floor(value / 128)) bytes.push((value % 128) | 0x80);
  return Buffer.from([...bytes, value]);
}

function signedLeb(value) {
  return value < 64 ? [value] : [(value & 0x7f) | 0x80, value >> 7];
}
