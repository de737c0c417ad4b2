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
import { FilterPromise, forgetJobs, runJobs } from "./web/promise.ts";

const PROCEED = { tag: "proceed" } as const;

/**
 * Makes the export `request-handler`. A string that it throws is the `err` of that function.
 * `name` is the handler's name with its file and line, `hasBody` whether the gateway buffers the
 * body.
 */
export function requestHandler(
  onRequest: OnRequest,
  edit: RequestEdit,
  name: string,
  hasBody: boolean,
): { handleRequest(): RequestAction } {
  const request = new Request(edit, hasBody);
  return {
    handleRequest(): RequestAction {
      beginCall();
      try {
        const reply = completed(onRequest(request));
        return reply === undefined ? PROCEED : { tag: "respond", val: reply };
      } catch (failure) {
        throw failed(failure, name);
      }
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
      beginCall();
      try {
        const reply = completed(onResponse(response, request));
        return reply === undefined ? PROCEED : { tag: "replace", val: reply };
      } catch (failure) {
        throw failed(failure, name);
      }
    },
  };
}

/** Ends the evaluation of the author's module: runs the jobs that it queued. */
export { runJobs as endModule } from "./web/promise.ts";

function beginCall(): void {
  markRunning();
  resetEdits();
}

/** Runs the jobs that a handler left behind, and returns its reply. */
function completed(result: unknown): Reply | undefined {
  if (result === undefined) {
    runJobs();
    return undefined;
  }
  if (isThenable(result)) return checkedReply(settled(result));
  runJobs();
  return checkedReply(result);
}

/** The value of the promise that a handler returned. */
function settled(result: PromiseLike<unknown>): unknown {
  const promise = FilterPromise.resolve(result);
  promise.markHandled();
  runJobs();
  const { state, value } = promise.peek();
  if (state === "rejected") throw value;
  if (state === "fulfilled") return value;
  throw new Error(
    "the promise that the handler returned is still pending when nothing is left to run: it awaits something that " +
      "never happens. A filter has no timers, and the promises of async functions in eval are never settled",
  );
}

/** The message for the gateway's log. The instance may serve another call. */
function failed(failure: unknown, name: string): string {
  forgetJobs();
  return failureMessage(failure, name);
}
