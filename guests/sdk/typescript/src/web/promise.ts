// Promises whose jobs the entry runs before a call ends.
//
// The engine queues the jobs of its own promises, but nothing outside runs that queue. This class
// has its own queue. `build.mjs` compiles `async` functions to generators that use the global
// Promise, so `await` uses the queue too. The algorithms are those of ECMA-262, section 27.2.
//
// This module does not know calls: `entry.ts` does.

type Job = () => void;
type Settle<T> = (value: T) => unknown;

let jobs: Job[] = [];
/** Rejected promises that nothing handles yet. */
const unhandled = new Set<FilterPromise<unknown>>();

/**
 * Runs all jobs, and those that they queue.
 *
 * @throws The reason of a rejection that nothing handles.
 */
export function runJobs(): void {
  if (jobs.length === 0 && unhandled.size === 0) return;
  while (jobs.length > 0) {
    const batch = jobs;
    jobs = [];
    for (const job of batch) job();
  }
  for (const promise of unhandled) {
    unhandled.clear();
    throw promise.peek().value;
  }
}

/** Forgets jobs and rejections, for an instance that serves another call. */
export function forgetJobs(): void {
  jobs = [];
  unhandled.clear();
}

/** Queues a job, as the global `queueMicrotask` does. */
export function queueJob(job: unknown): void {
  if (typeof job !== "function") throw new TypeError("queueMicrotask needs a function");
  jobs.push(() => {
    try {
      (job as Job)();
    } catch (error) {
      FilterPromise.reject(error);
    }
  });
}

interface Reaction {
  capability: Capability<unknown> | undefined;
  onFulfilled: unknown;
  onRejected: unknown;
}

interface Capability<T> {
  promise: FilterPromise<T>;
  resolve: Settle<T>;
  reject: Settle<unknown>;
}

type Constructor<T> = new (executor: (resolve: Settle<T>, reject: Settle<unknown>) => void) => FilterPromise<T>;

function capability<T>(constructor: unknown): Capability<T> {
  if (typeof constructor !== "function") throw new TypeError("Promise: this is not a constructor");
  let resolve: Settle<T> | undefined;
  let reject: Settle<unknown> | undefined;
  const promise = new (constructor as Constructor<T>)((first, second) => {
    if (resolve !== undefined || reject !== undefined) throw new TypeError("Promise: the executor was called twice");
    resolve = first;
    reject = second;
  });
  if (typeof resolve !== "function" || typeof reject !== "function") {
    throw new TypeError("Promise: the resolve or reject function is not callable");
  }
  return { promise, resolve, reject };
}

export class FilterPromise<T> {
  #state: "pending" | "fulfilled" | "rejected" = "pending";
  #value: unknown = undefined;
  #reactions: Reaction[] = [];
  #handled = false;

  constructor(executor: (resolve: Settle<T>, reject: Settle<unknown>) => void) {
    if (typeof executor !== "function") throw new TypeError("Promise: the executor is not a function");
    const { resolve, reject } = this.#resolvers();
    try {
      executor(resolve, reject);
    } catch (error) {
      reject(error);
    }
  }

  /** The state and, once it is settled, the value or reason. */
  peek(): { state: string; value: unknown } {
    return { state: this.#state, value: this.#value };
  }

  /** Marks a rejection as handled by the entry. */
  markHandled(): void {
    this.#handled = true;
    unhandled.delete(this);
  }

  #resolvers(): { resolve: Settle<unknown>; reject: Settle<unknown> } {
    let called = false;
    const reject = (reason: unknown): void => {
      if (called) return;
      called = true;
      this.#settle("rejected", reason);
    };
    const resolve = (value: unknown): void => {
      if (called) return;
      called = true;
      this.#resolve(value);
    };
    return { resolve, reject };
  }

  #resolve(value: unknown): void {
    if (value === this) return this.#settle("rejected", new TypeError("a promise cannot resolve to itself"));
    if ((typeof value !== "object" || value === null) && typeof value !== "function") {
      return this.#settle("fulfilled", value);
    }
    let then: unknown;
    try {
      then = (value as { then?: unknown }).then;
    } catch (error) {
      return this.#settle("rejected", error);
    }
    if (typeof then !== "function") return this.#settle("fulfilled", value);
    jobs.push(() => {
      const { resolve, reject } = this.#resolvers();
      try {
        (then as (this: unknown, ...args: unknown[]) => unknown).call(value, resolve, reject);
      } catch (error) {
        reject(error);
      }
    });
  }

  #settle(state: "fulfilled" | "rejected", value: unknown): void {
    this.#state = state;
    this.#value = value;
    const reactions = this.#reactions;
    this.#reactions = [];
    if (state === "rejected" && !this.#handled) unhandled.add(this);
    for (const reaction of reactions) this.#react(reaction);
  }

  #react({ capability, onFulfilled, onRejected }: Reaction): void {
    const isFulfilled = this.#state === "fulfilled";
    const handler = isFulfilled ? onFulfilled : onRejected;
    const value = this.#value;
    jobs.push(() => {
      if (typeof handler !== "function") {
        if (isFulfilled) capability?.resolve(value);
        else capability?.reject(value);
        return;
      }
      let result: unknown;
      try {
        result = handler(value);
      } catch (error) {
        capability?.reject(error);
        return;
      }
      capability?.resolve(result);
    });
  }

  then(onFulfilled?: unknown, onRejected?: unknown): FilterPromise<unknown> {
    const constructor = (this.constructor as { [Symbol.species]?: unknown } | undefined)?.[Symbol.species];
    const derived = capability<unknown>(constructor ?? FilterPromise);
    const reaction: Reaction = { capability: derived, onFulfilled, onRejected };
    this.markHandled();
    if (this.#state === "pending") this.#reactions.push(reaction);
    else this.#react(reaction);
    return derived.promise;
  }

  catch(onRejected?: unknown): unknown {
    return this.then(undefined, onRejected);
  }

  finally(onFinally?: unknown): unknown {
    if (typeof onFinally !== "function") return this.then(onFinally, onFinally);
    const constructor = (this.constructor as { [Symbol.species]?: typeof FilterPromise } | undefined)?.[Symbol.species];
    const type = constructor ?? FilterPromise;
    return this.then(
      (value: unknown) => type.resolve(onFinally()).then(() => value),
      (reason: unknown) =>
        type.resolve(onFinally()).then(() => {
          throw reason;
        }),
    );
  }

  static resolve(value?: unknown): FilterPromise<unknown> {
    if (value instanceof FilterPromise && value.constructor === this) return value;
    const made = capability<unknown>(this);
    made.resolve(value);
    return made.promise;
  }

  static reject(reason?: unknown): FilterPromise<unknown> {
    const made = capability<unknown>(this);
    made.reject(reason);
    return made.promise;
  }

  static withResolvers(): Capability<unknown> {
    return capability<unknown>(this);
  }

  static try(call: (...args: unknown[]) => unknown, ...args: unknown[]): FilterPromise<unknown> {
    return new this((resolve) => resolve(call(...args)));
  }

  static all(values: Iterable<unknown>): FilterPromise<unknown> {
    return collect(this, values, (made, results, store) => [store((value) => value), made.reject, results]);
  }

  static allSettled(values: Iterable<unknown>): FilterPromise<unknown> {
    return collect(this, values, (_made, results, store) => [
      store((value) => ({ status: "fulfilled", value })),
      store((reason) => ({ status: "rejected", reason })),
      results,
    ]);
  }

  static any(values: Iterable<unknown>): FilterPromise<unknown> {
    return collect(this, values, (made, results, store) => [made.resolve, store((reason) => reason), results], true);
  }

  static race(values: Iterable<unknown>): FilterPromise<unknown> {
    const made = capability<unknown>(this);
    try {
      for (const value of values) this.resolve(value).then(made.resolve, made.reject);
    } catch (error) {
      made.reject(error);
    }
    return made.promise;
  }

  static get [Symbol.species](): unknown {
    return this;
  }

  get [Symbol.toStringTag](): string {
    return "Promise";
  }
}

type Store = (shape: (value: unknown) => unknown) => Settle<unknown>;
type Handlers = [Settle<unknown>, Settle<unknown>, unknown[]];

/** `all`, `allSettled` and `any`: waits until each value has been stored. */
function collect(
  type: typeof FilterPromise,
  values: Iterable<unknown>,
  handlers: (made: Capability<unknown>, results: unknown[], store: Store) => Handlers,
  isAny = false,
): FilterPromise<unknown> {
  const made = capability<unknown>(type);
  const results: unknown[] = [];
  let remaining = 1;
  const finish = (): void => {
    remaining -= 1;
    if (remaining > 0) return;
    if (isAny) made.reject(new AggregateError(results, "All promises were rejected"));
    else made.resolve(results);
  };
  try {
    for (const value of values) {
      const index = results.push(undefined) - 1;
      remaining += 1;
      let called = false;
      const store: Store = (shape) => (value) => {
        if (called) return;
        called = true;
        results[index] = shape(value);
        finish();
      };
      const [onFulfilled, onRejected] = handlers(made, results, store);
      type.resolve(value).then(onFulfilled, onRejected);
    }
    finish();
  } catch (error) {
    made.reject(error);
  }
  return made.promise;
}

Object.defineProperty(FilterPromise, "name", { value: "Promise" });

/** `Array.fromAsync`, because that of the engine uses the engine's promises. */
export async function arrayFromAsync(
  items: unknown,
  map?: (value: unknown, index: number) => unknown,
): Promise<unknown[]> {
  const result: unknown[] = [];
  const source = items as Partial<AsyncIterable<unknown> & Iterable<unknown>> & ArrayLike<unknown>;
  const isIterable = source[Symbol.asyncIterator] !== undefined || source[Symbol.iterator] !== undefined;
  for await (const value of isIterable ? (source as AsyncIterable<unknown>) : Array.from(source)) {
    result.push(map === undefined ? value : await map(value, result.length));
  }
  return result;
}
