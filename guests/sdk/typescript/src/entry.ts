// What the generated entry of a filter calls: the author's handler in, the action that the WIT wants out. Must not know: any filter.
import type { RequestAction, ResponseAction } from "witgate:gateway/types@0.1.0";
import { describe } from "./failure.ts";
import { run } from "./globals.ts";
import type { OnRequest, OnResponse } from "./index.ts";
import { ReadonlyRequest, Request, type RequestEdit } from "./request.ts";
import type { Response } from "./response.ts";

const PROCEED = { tag: "proceed" } as const;

/** The export `request-handler`. A thrown string is the WIT's `err`. */
export function requestHandler(onRequest: OnRequest, edit: RequestEdit): { handleRequest(): RequestAction } {
  const request = new Request(edit);
  return {
    handleRequest(): RequestAction {
      run();
      try {
        const reply = onRequest(request);
        return reply === undefined || reply === null ? PROCEED : { tag: "respond", val: reply };
      } catch (failure) {
        throw describe(failure);
      }
    },
  };
}

/** The export `response-handler`. */
export function responseHandler(onResponse: OnResponse, response: Response): { handleResponse(): ResponseAction } {
  const request = new ReadonlyRequest();
  return {
    handleResponse(): ResponseAction {
      run();
      try {
        const reply = onResponse(response, request);
        return reply === undefined || reply === null ? PROCEED : { tag: "replace", val: reply };
      } catch (failure) {
        throw describe(failure);
      }
    },
  };
}
