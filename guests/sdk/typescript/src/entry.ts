// The exports of a filter: they call the author's handler and turn its result into the action that
// the WIT expects. The entry that `componentize` generates uses them.
//
// A handler may be asynchronous. Nothing outside runs the jobs of promises, so they run here after
// the handler has returned; a promise that is then still pending can never be settled.
//
// This module does not know any particular filter.
import type { RequestAction, ResponseAction } from "witgate:gateway/types@0.1.0";
import { isThenable, resetEdits } from "./check.ts";
import { failureMessage } from "./failure.ts";
import { markRunning } from "./globals.ts";
import type { OnRequest, OnResponse } from "./index.ts";
import { checkedReply, type Reply } from "./reply.ts";
import { ReadonlyRequest, Request, type RequestEdit } from "./request.ts";
import type { Response } from "./response.ts";
import { FilterPromise, forgetJobs, runJobs, takeUnhandled } from "./web/promise.ts";

const PROCEED = { tag: "proceed" } as const;

/**
 * Makes the export `request-handler`. A string that it throws is the `err` of that function.
 * `name` is the handler's name with its file and line.
 */
export function requestHandler(
  onRequest: OnRequest,
  edit: RequestEdit,
  name: string,
): { handleRequest(): RequestAction } {
  const request = new Request(edit);
  return {
    handleRequest(): RequestAction {
      const reply = call(name, () => onRequest(request));
      return reply === undefined ? PROCEED : { tag: "respond", val: reply };
    },
  };
}

/** Makes the export `response-handler`, in the same way. */
export function responseHandler(
  onResponse: OnResponse,
  response: Response,
  name: string,
): { handleResponse(): ResponseAction } {
  const request = new ReadonlyRequest();
  return {
    handleResponse(): ResponseAction {
      const reply = call(name, () => onResponse(response, request));
      return reply === undefined ? PROCEED : { tag: "replace", val: reply };
    },
  };
}

/** Ends the build phase: runs the jobs of the author's module. */
export function endModule(): void {
  runJobs();
  const rejection = takeUnhandled();
  if (rejection !== undefined) throw rejection.reason;
}

function call(name: string, handler: () => unknown): Reply | undefined {
  markRunning();
  resetEdits();
  try {
    const result = handler();
    return checkedReply(isThenable(result) ? settled(result) : afterJobs(result));
  } catch (failure) {
    forgetJobs();
    throw failureMessage(failure, name);
  }
}

/** Runs the jobs that a synchronous handler left behind. */
function afterJobs(result: unknown): unknown {
  runJobs();
  const rejection = takeUnhandled();
  if (rejection !== undefined) throw rejection.reason;
  return result;
}

/** The value of the promise that a handler returned. */
function settled(result: PromiseLike<unknown>): unknown {
  const promise = FilterPromise.resolve(result);
  promise.markHandled();
  afterJobs(undefined);
  const { state, value } = promise.peek();
  if (state === "rejected") throw value;
  if (state === "fulfilled") return value;
  throw new Error(
    "the promise that the handler returned is still pending when nothing is left to run: it awaits something that " +
      "never happens, because a filter has no timers and cannot send requests",
  );
}
