// Compares the Web APIs of the SDK with those of Node.
import { expect, test } from "vitest";
import { structuredClone as clone } from "../src/web/clone.ts";
import { TextDecoder as Decoder } from "../src/web/encoding.ts";
import { Headers as OwnHeaders } from "../src/web/headers.ts";
import ENCODINGS from "../src/web/encodings.json" with { type: "json" };
import { FilterPromise, queueJob, runJobs } from "../src/web/promise.ts";
import { URL as OwnURL, URLSearchParams as OwnParameters } from "../src/web/url.ts";

const INPUTS = [
  ...["http://h", "HTTP://U:p@H:80/a/../b?q#f", "//h/p", "/abs", "rel", "?q", "#f", "", "..", "./a/./b/"],
  ...["mailto:a@b", "data:,x y", "file:///a/b", "file://h/a", "file:/c:/x/../..", "c:\\x", "http:a", "http:/a", "x:"],
  ...["http://[::1]:8080/", "http://[1:2:3:4:5:6:7:8]", "http://[::127.0.0.1]", "http://[1::]", "http://[::g]"],
  ...["http://1.2.3.4.", "http://0xff", "http://4294967296", "http://1.2.3.4.5", "http://09.1", "http://a.1x"],
  ...["http://a:b:c", "http://h:", "http://h:0080", "http://@h", "http://u:@h", "http://:p@h", "http://a@b@c"],
  ...["http://h/é?ü#ö", "http://h/%zz", "http://h/a%2fb", "http://h/a|b`d", "http://h/?'\"<>", "foo://h/?'\"<>"],
  ...["foo://a b", "foo://%41/", "foo:a/../b", "foo:/a/../b", "foo:/..//b", "http://h/\\x", "http://h\\x", "  http://h "],
  ...["http://h/..%2e/a", "http://h/.%2E/a", "http://h/a/.", "http://h/a/..", "http://h//", "http://h/a//../b", "a:b:c"],
];

test("URLs are parsed as Node parses them", () => {
  const different: unknown[] = [];
  for (const base of [undefined, "http://b/c/d?e#f", "file:///x/y", "foo://h/p/q", "foo:opaque"]) {
    for (const input of INPUTS) {
      const parts = (type: typeof URL | typeof OwnURL): unknown => {
        if (!type.canParse(input, base)) return "invalid";
        const url = new type(input, base);
        return [url.href, url.origin, url.host, url.port, url.pathname, url.search, url.hash, url.username, url.password];
      };
      const [own, native] = [JSON.stringify(parts(OwnURL)), JSON.stringify(parts(URL))];
      if (own !== native) different.push([input, base, own, native]);
    }
  }
  expect(different).toEqual([]);
});

test("parameters and header fields are those of Node", () => {
  for (const query of ["a=1&b=2&a=3", "?x", "=", "&&a", "a=b=c", "a=%20+%2B%zz", "é=ü&😀", "a[]=1"]) {
    expect(new OwnParameters(query).toString()).toBe(new URLSearchParams(query).toString());
    expect([...new OwnParameters(query)]).toEqual([...new URLSearchParams(query)]);
  }
  const lines: Array<[string, string]> = [["B", " 1 "], ["a", "2"], ["b", "3"], ["set-cookie", "x"], ["set-cookie", "y"]];
  expect([...new OwnHeaders(lines)]).toEqual([...new Headers(lines)]);
});

test("bytes are decoded as Node decodes them, whole and in pieces", () => {
  let state = 7;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16;
  const edges = [0x00, 0x41, 0x80, 0x9f, 0xa0, 0xbb, 0xbf, 0xc2, 0xd8, 0xdc, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xfe, 0xff];
  for (let round = 0; round < 3000; round++) {
    const bytes = Uint8Array.from({ length: next() % 9 }, () => edges[next() % edges.length] as number);
    const cut = next() % (bytes.length + 1);
    for (const label of ["utf-8", "utf-16le", "utf-16be"]) {
      for (const options of [{}, { ignoreBOM: true }, { fatal: true }]) {
        const run = (decoder: { decode: TextDecoder["decode"] }): string => {
          try {
            const first = decoder.decode(bytes.subarray(0, cut), { stream: true });
            return first + decoder.decode(bytes.subarray(cut)) + decoder.decode(bytes);
          } catch (error) {
            return (error as Error).name;
          }
        };
        const expected = run(new TextDecoder(label, options));
        expect(run(new Decoder(label, options) as never), `${label} ${bytes} at ${cut}`).toBe(expected);
      }
    }
  }
});

test("jobs run in the order in which those of Node run", async () => {
  const scenario = (type: typeof Promise, queue: typeof queueMicrotask, log: string[]): void => {
    const note = (text: string) => (value: unknown) => void log.push(`${text} ${String(value)}`);
    type.resolve(1).then(note("a")).then(note("b"));
    new type((resolve) => resolve(type.resolve(2))).then(note("c"));
    queue(() => log.push("d"));
    type.reject(new Error("x")).catch(note("e")).finally(() => log.push("f"));
    void type.all([3, type.resolve(4)]).then(note("g"));
    void type.allSettled([type.reject(5)]).then((all) => note("h")(all[0]?.status));
    void type.any([type.reject(6), 7]).then(note("i"));
    void type.race([8, type.resolve(9)]).then(note("j"));
    void type.any([type.reject(1)]).catch((error: AggregateError) => note("k")(error.errors));
    type.resolve({ then: (done: (value: number) => void) => done(10) }).then(note("l"));
    const self: Promise<unknown> = new type((resolve) => queue(() => resolve(self)));
    self.catch((error: Error) => note("m")(error.name));
  };
  const [native, own]: [string[], string[]] = [[], []];
  scenario(Promise, queueMicrotask, native);
  await new Promise((resolve) => setTimeout(resolve, 5));
  scenario(FilterPromise as never, queueJob as never, own);
  runJobs();
  expect(own).toEqual(native);
});

test("encodings of one byte are decoded as Node decodes them", () => {
  const bytes = Uint8Array.from({ length: 128 }, (_, index) => 128 + index);
  // Node 20 departs from the Encoding Standard here.
  const isOther = /^(windows-(1252|1253|1255|874)|koi8-u|iso-8859-16)$/;
  const names = Object.keys(ENCODINGS.upperHalves).filter((name) => !isOther.test(name));
  expect(names.length).toBeGreaterThan(20);
  for (const name of names) expect(new Decoder(name).decode(bytes), name).toBe(new TextDecoder(name).decode(bytes));
  expect(new Decoder("x-user-defined").decode(new Uint8Array([0x41, 0xff]))).toBe("A\uf7ff");
  for (const label of ["shift_jis", "big5", "gbk", "euc-kr"]) expect(() => new Decoder(label)).toThrow("iconv-lite");
  for (const label of ["replacement", "latin9", ""]) expect(() => new Decoder(label)).toThrow("is no label");
});

test("a rejection that nothing handles is thrown", () => {
  void FilterPromise.reject(new TypeError("lost"));
  expect(runJobs).toThrow("lost");
  queueJob(() => {
    throw new RangeError("in a job");
  });
  expect(runJobs).toThrow("in a job");
  expect(runJobs()).toBeUndefined();
});

test("values are cloned as Node clones them", () => {
  const cycle: Record<string, unknown> = { list: [1, new Date(0), /a/g], map: new Map([[1, { a: 2 }]]) };
  cycle["self"] = cycle;
  const copy = clone(cycle) as typeof cycle;
  expect(copy).toEqual(structuredClone(cycle));
  expect(copy["self"]).toBe(copy);
  for (const value of [() => 1, Symbol(), { f() {} }, Promise.resolve()]) expect(() => clone(value)).toThrow(DOMException);
});
