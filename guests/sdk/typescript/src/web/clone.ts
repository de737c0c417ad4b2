// structuredClone by the HTML Standard, for the types that a filter has.

const PRIMITIVE_BOXES = new Set(["Boolean", "Number", "String", "BigInt"]);
const ERRORS: Record<string, ErrorConstructor> = {
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

/** Copies a value deeply. Cycles and shared objects stay as they are. */
export function structuredClone(value: unknown, options?: { transfer?: unknown[] }): unknown {
  if (arguments.length === 0) throw new TypeError("structuredClone needs a value to copy");
  const memory = new Map<unknown, unknown>();
  const buffers = options?.transfer === undefined ? [] : [...options.transfer];
  for (const buffer of buffers) {
    if (!(buffer instanceof ArrayBuffer)) throw refused("only an ArrayBuffer can be transferred");
  }
  const copy = clone(value, memory);
  for (const buffer of buffers) (buffer as { transfer?(): void }).transfer?.();
  return copy;
}

function refused(message: string): Error {
  return new DOMException(message, "DataCloneError");
}

function clone(value: unknown, memory: Map<unknown, unknown>): unknown {
  if (typeof value === "symbol" || typeof value === "function") {
    throw refused(`a ${typeof value} cannot be cloned`);
  }
  if (typeof value !== "object" || value === null) return value;
  const known = memory.get(value);
  if (known !== undefined) return known;
  const tag = Object.prototype.toString.call(value).slice(8, -1);
  const { copy, fill } = shell(value, tag, memory);
  memory.set(value, copy);
  fill?.();
  return copy;
}

/** An empty copy, and what fills it after it is known as the copy. */
function shell(value: object, tag: string, memory: Map<unknown, unknown>): { copy: object; fill?: () => void } {
  if (value instanceof Date) return { copy: new Date(value.getTime()) };
  if (value instanceof RegExp) return { copy: new RegExp(value.source, value.flags) };
  if (value instanceof ArrayBuffer) return { copy: value.slice(0) };
  if (ArrayBuffer.isView(value)) return { copy: cloneView(value, memory) };
  if (PRIMITIVE_BOXES.has(tag) && typeof value.valueOf() !== "object") return { copy: Object(value.valueOf()) };
  if (value instanceof Map) {
    const copy = new Map();
    const entries = [...value];
    return { copy, fill: () => entries.forEach(([key, item]) => copy.set(clone(key, memory), clone(item, memory))) };
  }
  if (value instanceof Set) {
    const copy = new Set();
    const items = [...value];
    return { copy, fill: () => items.forEach((item) => copy.add(clone(item, memory))) };
  }
  if (value instanceof DOMException) return { copy: new DOMException(value.message, value.name) };
  if (value instanceof Error) return cloneError(value, memory);
  if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet || value instanceof WeakRef) {
    throw refused(`a ${tag} cannot be cloned`);
  }
  const copy: Record<string, unknown> | unknown[] = Array.isArray(value) ? new Array(value.length) : {};
  const fill = (): void => {
    for (const key of Object.keys(value)) {
      const item = clone((value as Record<string, unknown>)[key], memory);
      Object.defineProperty(copy, key, { value: item, writable: true, enumerable: true, configurable: true });
    }
  };
  return { copy, fill };
}

function cloneView(view: ArrayBufferView, memory: Map<unknown, unknown>): object {
  const buffer = clone(view.buffer, memory);
  const type = view.constructor as new (buffer: unknown, at: number, length: number) => object;
  const size = (view as { BYTES_PER_ELEMENT?: number }).BYTES_PER_ELEMENT ?? 1;
  return new type(buffer, view.byteOffset, view.byteLength / size);
}

function cloneError(error: Error, memory: Map<unknown, unknown>): { copy: object; fill: () => void } {
  const copy = new (ERRORS[error.name] ?? Error)(String(error.message));
  const fill = (): void => {
    for (const key of ["stack", "cause"]) {
      if (!Object.hasOwn(error, key)) continue;
      const value = clone((error as unknown as Record<string, unknown>)[key], memory);
      Object.defineProperty(copy, key, { value, writable: true, configurable: true });
    }
  };
  return { copy, fill };
}
